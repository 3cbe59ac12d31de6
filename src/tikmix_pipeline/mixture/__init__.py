"""What is decided: mixtures on the simplex, their bounds, TiKMiX-D, and TiKMiX-M in `sweep`.

May import `parameters`, `record`, `statistics` and what they stand on:
a decision needs no tensors, no model and no text.
"""
