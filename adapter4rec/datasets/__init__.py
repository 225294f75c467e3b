"""Generation and preparation of data sets."""
