"""The images of H&M, or of Amazon, as an LMDB: what image runs read.

    python build_lmdb_hm.py [--preset hm|amazon] [--name value ...]
    python build_lmdb_hm.py --items LIST --images FOLDER --into LMDB [--name value ...]

The second form is for images of your own. To convert an LMDB of the released
scripts, replace --images FOLDER by --convert LMDB.
"""

import sys

from adapter4rec.data.images.building import build_from_page
from adapter4rec.utils.errors import run_main

# Chosen by --preset; every setting can be overridden on the command line: --name value. H&M is the default
# unless --items, --images or --convert names other data.
presets = {
    "hm": {
        "items": "Dataset/HM/hm_50w_items.tsv",
        "images": "Dataset/HM/images",
        "into": "Dataset/HM/hm_50w_images.lmdb",
        "store": "pixels",
        "size": 224,
        "missing": "error",
        "numbered_files": True,
    },
    "amazon": {
        "items": "Dataset/Amazon/amazon_2w_items.tsv",
        "images": "Dataset/Amazon/images",
        "into": "Dataset/Amazon/amazon_images.lmdb",
        "store": "pixels",
        "size": 224,
        "missing": "error",
    },
}

if __name__ == "__main__":
    run_main(lambda: build_from_page(presets, sys.argv[1:]))
