"""Other methods that decide a mixture, one file each, for TiKMiX to be held against.

Each returns a `Baseline`. May import `corpus`, `lm`, `mixture` and `parameters`; neither Kedro nor MLflow.
"""
