"""Many jobs that need nothing of each other: in worker processes on this machine, or on a Ray cluster.

Here belongs how jobs are run and nothing of what they do: `parameters`, `errors` and, for what the nodes of a cluster
must have in common, `store.code` are all that may be imported.
How a job is run changes none of its bits, which is why no result is told stale by a change of this room.
"""
