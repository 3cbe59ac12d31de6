"""What is trained: the model, its optimiser, one chunk of training, checkpoints and evaluation."""
