"""The training loop and what it stands on: precision, parameter groups, its saved state."""
