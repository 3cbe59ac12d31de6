"""What measuring influence and sweeping mixtures would take, on paper: operations, bytes, seconds and dollars.

Here belong plain formulas: a decoder's `shape`, the `devices`, the `costs` of a workload, the `space` that it takes in
memory and on disk, and the `plan` that puts them together. Operations are those that `lm.cost` counts in a run, so that
a plan and a run can be held against each other. Nothing here imports torch, and `python -m tools.capacity` prints the
table.
"""
