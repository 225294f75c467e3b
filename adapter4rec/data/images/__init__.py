"""Item images: an LMDB built once from a folder of image files and read during training."""
