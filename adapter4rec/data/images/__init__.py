"""Item images: an LMDB that is built once from a folder of image files and read while training."""
