"""What is measured: how much more of each domain would help each task, at a checkpoint."""
