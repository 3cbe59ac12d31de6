"""TiKMiX-M: candidate mixtures, a surrogate of their measured responses, and the search of it."""
