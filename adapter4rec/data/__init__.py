"""From files to batches: interactions, item content, and the batches that join them."""
