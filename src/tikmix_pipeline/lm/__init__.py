"""What is trained: the model, its optimiser, chunks and lookahead runs, checkpoints and evaluation.

It may import `corpus`, `distributed` and what they stand on.
"""
