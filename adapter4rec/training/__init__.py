"""The training loop, its setup and optimizer, checkpoints and the final test."""
