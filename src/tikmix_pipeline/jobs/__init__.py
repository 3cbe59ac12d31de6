"""Many jobs that need nothing of each other: in processes on this machine, or on a Ray cluster.

How a job is run changes none of its bits, which is why no result is told stale by a change of this room.
"""
