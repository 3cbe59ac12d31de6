"""Training on several processes; imported only where `train.world_size` is more than one."""
