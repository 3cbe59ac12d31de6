"""What happens when Kedro runs: configuration, checks before the first node, locks, MLflow.

Nothing imports this room but Kedro's settings; it may import every other.
"""
