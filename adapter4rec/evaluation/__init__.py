"""Leave-one-out evaluation: the encoded catalogue, ranks of the targets, metrics."""
