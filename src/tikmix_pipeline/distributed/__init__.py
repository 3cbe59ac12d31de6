"""Several processes that do one thing together, in torch.distributed's words; knows nothing of what they do.

It may import `parameters`, `jobs`, `files`, `errors` and `progress`.
"""
