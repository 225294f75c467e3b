"""A trained model at work: recommendations, new items, exported embeddings."""
