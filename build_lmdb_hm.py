"""Build the LMDB of item images for H&M, Amazon, or your own data.

    python build_lmdb_hm.py [--preset hm|amazon] [--name value ...]
    python build_lmdb_hm.py --items LIST --images FOLDER --into LMDB [--name value ...]

To convert an LMDB of the released scripts, use --convert LMDB instead of
--images FOLDER.
"""

import sys

from adapter4rec.data.images.building import build_from_page
from adapter4rec.utils.errors import run_main

# Presets of --preset; override any setting with --name value. The default is hm, unless --items, --images or
# --convert is set.
presets = {
    "hm": {
        "items": "Dataset/HM/hm_50w_items.tsv",
        "images": "Dataset/HM/images",
        "into": "Dataset/HM/hm_50w_images.lmdb",
        "size": 224,
        "numbered_files": True,
    },
    "amazon": {
        "items": "Dataset/Amazon/amazon_2w_items.tsv",
        "images": "Dataset/Amazon/images",
        "into": "Dataset/Amazon/amazon_images.lmdb",
        "size": 224,
    },
}

if __name__ == "__main__":
    run_main(lambda: build_from_page(presets, sys.argv[1:]))
