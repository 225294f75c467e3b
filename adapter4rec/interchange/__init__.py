"""Adapters of the item encoder, to and from the folders of neighbouring libraries."""
