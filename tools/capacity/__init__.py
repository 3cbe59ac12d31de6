"""What measuring influence and sweeping mixtures would take, on paper: operations, bytes, seconds and dollars.

Plain formulas of a decoder's shape (`shape`), of what is asked of it (`workload`) and of the devices (`devices`). The
operations (`operations`) are those that `lm.cost` counts in a run, so that a plan and a run can be held against each
other. `python -m tools.capacity` prints the table.
"""
