"""What other methods would train on: UniMax, n-gram likelihood, DoReMi, RegMix."""
