"""What a run leaves: its folder, a line in the ledger, curves, TensorBoard scalars."""
