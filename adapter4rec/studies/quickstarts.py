"""Definition of the quickstarts: sample data, small backbone and runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adapter4rec.data.images.building import ImageLmdbSettings, build, unfinished_folder
from adapter4rec.datasets.sample import SampleSettings, make_image_sample, make_sample
from adapter4rec.models.pretrained import fetch
from adapter4rec.models.small_vit import SIZES, make_small_vit
from adapter4rec.runs.run import Record
from adapter4rec.utils.files import REPOSITORY


@dataclass(frozen=True)
class Quickstart:
    """A quickstart.

    Attributes:
        tree: ``Text`` or ``CV``.
        sample: folder of the generated sample data.
        runs: folder of the runs.
        backbone: folder of the backbone in ``pretrained_models/``.
        prepare: generates the sample data and prepares the backbone.
        source_stages: settings of the runs on the source domain; each starts from the previous model.
        target_methods: settings of the runs on the target domain, by method.
        files: file names of a domain, by setting.
        try_next: options for the launcher suggested at the end.
        draws_contact_sheet: whether to draw a contact sheet of recommendations at the end.
    """

    tree: str
    sample: Path
    runs: Path
    backbone: str
    prepare: Callable[[Quickstart], None]
    source_stages: dict[str, Record]
    target_methods: dict[str, Record]
    files: dict[str, str]
    try_next: str = ""
    draws_contact_sheet: bool = False

    def data(self, domain: str) -> dict[str, Path]:
        """Files of the ``source`` or ``target`` domain, by setting."""
        return {name: self.sample / domain / file for name, file in self.files.items()}

    def exported(self, stage: str) -> Path:
        """Path of the exported model of a source stage."""
        return self.runs / f"{stage}.safetensors"

    @property
    def source(self) -> Path:
        """Path of the final source model."""
        return self.exported(list(self.source_stages)[-1])


_NEW_PARTS = {"lr_item_head": 1e-3, "lr_user_encoder": 1e-3}


def _prepare_text(plan: Quickstart) -> None:
    fetch(plan.backbone)
    make_sample(plan.sample, SampleSettings(users=3000, target_users=1000, items=400))
    print(f"sample data (generated): {plan.sample}")


TEXT = Quickstart(
    tree="Text",
    sample=REPOSITORY / "Dataset" / "quickstart",
    runs=REPOSITORY / "runs" / "quickstart",
    backbone="minilm/all_minilm_l6_v2",
    prepare=_prepare_text,
    # Train the item head first, on cached hidden states of the frozen backbone, then all parameters.
    source_stages={
        "source_head": {"method": "head", "epochs": 15, **_NEW_PARTS},
        "source": {"method": "all", "epochs": 1, "lr_backbone": 1e-4, **_NEW_PARTS},
    },
    target_methods={
        "popularity": {},
        "frozen": {},
        "scratch": {"epochs": 3, "lr_backbone": 1e-4, **_NEW_PARTS},
        "houlsby": {"epochs": 3, "lr_adapter": 2e-3},
        "finetune": {"epochs": 3, "lr_backbone": 1e-4, **_NEW_PARTS},
    },
    files={"users": "users.tsv", "items": "items.tsv"},
    try_next="--batch_size 64 --lr_adapter 2e-3 --epochs 3",
)


def _prepare_images(plan: Quickstart) -> None:
    made = make_image_sample(plan.sample, SampleSettings(users=3000, target_users=1000, items=400))
    print(f"sample data (generated): {plan.sample}")
    for folder in (plan.sample / "source", plan.sample / "target"):
        lmdb = folder / "images.lmdb"
        if made:
            for old in (lmdb, unfinished_folder(lmdb)):  # the new images have the same names as the old ones
                shutil.rmtree(old, ignore_errors=True)
        build(
            ImageLmdbSettings(
                items=folder / "items.tsv",
                images=folder / "images",
                into=lmdb,
                size=SIZES["image_size"],
                workers=1,
            )
        )
    make_small_vit(REPOSITORY / "pretrained_models" / plan.backbone)
    print(f"backbone (small, randomly initialised): {plan.backbone}")


IMAGE = Quickstart(
    tree="CV",
    sample=REPOSITORY / "Dataset" / "quickstart_image",
    runs=REPOSITORY / "runs" / "quickstart_image",
    backbone="small_vit_untrained",
    prepare=_prepare_images,
    source_stages={
        "source_head": {"method": "head", "epochs": 6, **_NEW_PARTS},
        "source": {"method": "all", "epochs": 16, "lr_backbone": 5e-4, **_NEW_PARTS},
    },
    target_methods={
        "popularity": {},
        "frozen": {},
        "scratch": {"epochs": 10, "lr_backbone": 5e-4, **_NEW_PARTS},
        "houlsby": {"epochs": 10, "lr_adapter": 2e-3},
        "finetune": {"epochs": 10, "lr_backbone": 5e-4, **_NEW_PARTS},
    },
    files={"users": "users.tsv", "items": "items.tsv", "images": "images.lmdb"},
    try_next="--batch_size 64 --lr_adapter 2e-3 --epochs 10",
    draws_contact_sheet=True,
)

QUICKSTARTS = {"text": TEXT, "image": IMAGE}
