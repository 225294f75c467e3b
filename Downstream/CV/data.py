"""Data of target training with images: a domain with image items, Amazon in the paper (Dataset/README.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adapter4rec.data.domain import Domain
    from Downstream.CV.train import Settings


def read_domain(settings: Settings) -> Domain:
    """Read the users and what the items are encoded from: images, vectors, or nothing but ids.

    Images stay uint8 until the image encoder normalises them on the device (``Normalisation``).

    Raises:
        UserError: the files, the LMDB or the backbone's configuration are missing, invalid or incompatible.
    """
    from adapter4rec.data.domain import read_image_domain, read_vector_domain
    from adapter4rec.models.image_encoder import expected_image_size

    if settings.item_vectors is not None:
        return read_vector_domain(settings, settings.item_vectors)
    return read_image_domain(settings, expected_image_size(settings) if settings.uses_content else None)
