"""What the model reads: text sources become tokenised domain shards, and shards become a `MixtureStream`."""
