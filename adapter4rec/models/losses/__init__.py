"""Losses: how the scores of the next items are compared with those of other items. One file each."""
