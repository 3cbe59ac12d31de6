"""What is measured: how much more of each domain would help each task, at a checkpoint, and how sure that is.

It may import `corpus`, `lm`, `distributed`, `statistics` and `parameters`; it decides no mixture.
"""
