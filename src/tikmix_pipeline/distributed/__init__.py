"""Several processes that do one thing together; imported only where `train.world_size` is more than one."""
