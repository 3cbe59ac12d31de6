"""One of several processes that share a model; imported only where `train.world_size` is more than one."""
