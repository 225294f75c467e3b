"""Data sets that this project generates or prepares."""
