"""Source models, released checkpoints and their conversion, and merging of adapters into the weights."""
