"""What differs between text and images: how a domain is read, and how its items are encoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from adapter4rec.domains import Domain, load_image_domain, load_text_domain
from adapter4rec.models.building import build_image_encoder, build_text_encoder
from adapter4rec.models.item_encoders import ContentItemEncoder


@dataclass(frozen=True)
class Modality:
    """A kind of item content.

    Attributes:
        name: in a word; stands in run folders.
        load_domain: reads a domain with such items from a stage's settings.
        build_encoder: builds the item encoder from a stage's settings.
    """

    name: str
    load_domain: Callable[..., Domain]
    build_encoder: Callable[..., ContentItemEncoder]


MODALITIES = {
    "text": Modality("text", load_text_domain, build_text_encoder),
    "image": Modality("image", load_image_domain, build_image_encoder),
}
"""By the name that a stage's settings give (``settings.modality``)."""
