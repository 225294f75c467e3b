"""Output of a run: run folder, ledger record, curves, TensorBoard scalars."""
