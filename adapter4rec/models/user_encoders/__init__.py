"""User encoders: they map the item embeddings of a sequence to next-item vectors, one file each."""
