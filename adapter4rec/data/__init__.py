"""Data: interactions, item content, and training batches."""
