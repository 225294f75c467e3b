"""Inference with trained models: recommendations, new items, exported embeddings."""
