"""Correlations and intervals, written once for all rooms.

It imports NumPy, SciPy inside functions, and nothing else of the package but `errors`.
"""
