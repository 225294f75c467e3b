"""Leave-one-out evaluation: catalogue embeddings, ranks of the targets, metrics."""
