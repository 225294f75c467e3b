"""Definition of the quickstarts: sample data, small backbone and runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapter4rec.utils.files import REPOSITORY

Values = dict[str, Any]
_USERS_AND_ITEMS = {"users": 3000, "target_users": 1000, "items": 400}
_NEW_PARTS = {"lr_item_head": 1e-3, "lr_user_encoder": 1e-3}
_AS_IN_THE_PAPER = {"pooling": "cls"}  # MiniLM's folder records the mean


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
        target_methods: settings of the runs on the target domain, by name; the method, if it is not the name.
        files: file names of a domain, by setting.
        study_epochs: epochs of the rows of a study with ``--sample``.
        study_source: settings of its source models.
    """

    tree: str
    sample: Path
    runs: Path
    backbone: str
    prepare: Callable[[Quickstart], None]
    source_stages: dict[str, Values]
    target_methods: dict[str, Values]
    files: dict[str, str]
    study_epochs: int
    study_source: Values

    def settings(self, domain: str) -> Values:
        """Files of the ``source`` or ``target`` domain, and the backbone."""
        files = {name: self.sample / domain / file for name, file in self.files.items()}
        return files | {"backbone": self.backbone}


def _target_methods(epochs: int, lr_backbone: float) -> dict[str, Values]:
    all_weights = {"epochs": epochs, "lr_backbone": lr_backbone, **_NEW_PARTS}
    houlsby = {"method": "houlsby", "item_bottleneck": 64, "epochs": epochs, "lr_adapter": 2e-3}
    return {
        "popularity": {},
        "frozen": {},
        "scratch": all_weights,
        "houlsby": houlsby,
        "finetune": all_weights,
        "houlsby_in_batch": houlsby | {"loss": "in_batch"},
    }


def _prepare_text(plan: Quickstart) -> None:
    from adapter4rec.datasets.sample import SampleSettings, make_sample
    from adapter4rec.models.pretrained import fetch

    fetch(plan.backbone)
    make_sample(plan.sample, SampleSettings(**_USERS_AND_ITEMS))
    print(f"sample data (generated): {plan.sample}")


TEXT = Quickstart(
    tree="Text",
    sample=REPOSITORY / "Dataset" / "quickstart",
    runs=REPOSITORY / "runs" / "quickstart",
    backbone="minilm/all_minilm_l6_v2",
    prepare=_prepare_text,
    # Train the item head first, on cached hidden states of the frozen backbone, then all parameters.
    source_stages={
        "source_head": {"method": "head", "epochs": 15, **_NEW_PARTS, **_AS_IN_THE_PAPER},
        "source": {"method": "all", "epochs": 1, "lr_backbone": 1e-4, **_NEW_PARTS, **_AS_IN_THE_PAPER},
    },
    target_methods={
        name: one | _AS_IN_THE_PAPER for name, one in _target_methods(epochs=3, lr_backbone=1e-4).items()
    },
    files={"users": "users.tsv", "items": "items.tsv"},
    study_epochs=2,
    study_source={"method": "head", "epochs": 15, **_NEW_PARTS},
)


def _prepare_images(plan: Quickstart) -> None:
    from adapter4rec.data.images.building import ImageLmdbSettings, build
    from adapter4rec.datasets.sample import SampleSettings, make_image_sample
    from adapter4rec.models.small_vit import IMAGE_SIZE, make_small_vit

    make_image_sample(plan.sample, SampleSettings(**_USERS_AND_ITEMS))
    print(f"sample data (generated): {plan.sample}")
    for folder in (plan.sample / "source", plan.sample / "target"):
        lmdb = folder / "images.lmdb"
        build(ImageLmdbSettings(folder / "items.tsv", lmdb, folder / "images", size=IMAGE_SIZE, workers=1))
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
    target_methods=_target_methods(epochs=10, lr_backbone=5e-4),
    files={"users": "users.tsv", "items": "items.tsv", "images": "images.lmdb"},
    study_epochs=4,
    study_source={"epochs": 16, "lr_backbone": 5e-4, **_NEW_PARTS},
)

QUICKSTARTS = {"text": TEXT, "image": IMAGE}
