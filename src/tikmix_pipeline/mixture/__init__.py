"""What is decided: mixtures on the simplex, their bounds, and TiKMiX-D."""
