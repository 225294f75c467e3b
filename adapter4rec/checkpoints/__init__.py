"""Models as files: source models, released checkpoints, and adapters merged into plain weights."""
