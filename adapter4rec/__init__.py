"""Adapter4Rec: recommenders that learn from raw item content, and adapters that move them to a new domain."""
