"""One loaded base model that serves many domains, each by its adapters and its own items.

::

    shops = adapter4rec.Domains({"music": "bundles/music", "books": "bundles/books"})
    shops["books"].recommend(["b12", "b7"], top_k=5)
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

from adapter4rec.models.transrec import TransRec
from adapter4rec.serving.bundles import ADAPTER, read_base, read_manifest, recommender_of, same_base
from adapter4rec.serving.hub import bundle_folder
from adapter4rec.serving.recommender import Recommender
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.process_group import single_process

_OF_BASE = (
    *("objective", "cosine", "user_encoder", "user_heads", "max_seq_len", "layers", "pooling"),
    *("normalisation", "release_masking"),
)
"""Settings by which equal weights may compute different embeddings."""


class Domains(Mapping[str, Recommender]):
    """Recommenders of several domains, by name, whose base model is in memory once.

    Each has its own adapters and items. All can be used at any time and in any order: choosing one is a
    look-up; nothing is loaded, attached or copied.

    Args:
        bundles: bundle of each domain, as :func:`adapter4rec.from_pretrained` takes it. Bundles written
            without the base model are enough.
        base: a bundle with the base model; default: the first of ``bundles``.
        device: ``auto`` (a GPU if available), ``cpu``, ``cuda`` or ``cuda:N``.
        precision: number format in which items are encoded.

    Raises:
        UserError: see :meth:`add`.
    """

    def __init__(
        self,
        bundles: Mapping[str, Path | str],
        *,
        base: Path | str | None = None,
        device: str = "auto",
        precision: str = "fp32",
    ) -> None:
        if base is None and not bundles:
            raise UserError("expected the bundle of at least one domain")
        self._process = single_process(device)
        self._precision = precision
        self._folder = bundle_folder(next(iter(bundles.values())) if base is None else base)
        self._manifest = read_manifest(self._folder)
        self._base = read_base(self._folder, self._manifest).to(self._process.device)
        self._domains: dict[str, Recommender] = {}
        for name, bundle in bundles.items():
            self.add(name, bundle)

    def add(self, name: str, bundle: Path | str) -> Recommender:
        """Add a domain, or replace the one of this name.

        Args:
            name: of the domain.
            bundle: its bundle.

        Raises:
            UserError: not a bundle, a damaged one, or one of another base model.
        """
        folder = bundle_folder(bundle)
        manifest, own = read_manifest(folder), self._manifest
        differing = [one for one in _OF_BASE if manifest.settings.get(one) != own.settings.get(one)]
        if differing or (ADAPTER not in manifest.files and not same_base(manifest, own)):
            of = f" ({', '.join(differing)})" if differing else ""
            raise UserError(
                f"{folder}: another base model than that of {self._folder}{of}; domains that share a base "
                "were adapted from the same source model"
            )
        model = sharing_weights(self._base)
        domain = recommender_of(folder, manifest, self._folder, model, self._process, self._precision)
        self._domains[name] = domain
        return domain

    def remove(self, name: str) -> None:
        """Remove a domain. Recommenders in use keep working."""
        del self._domains[name]

    def __getitem__(self, name: str) -> Recommender:
        """The recommender of a domain."""
        return self._domains[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._domains)

    def __len__(self) -> int:
        return len(self._domains)


def sharing_weights(model: TransRec) -> TransRec:
    """A copy of a model without adapters that has the same parameters and buffers, not copies of them.

    Adapters can be added to each copy. They must not be merged, which changes the shared weights.
    """
    shared = {id(one): one for one in chain(model.parameters(), model.buffers())}
    return copy.deepcopy(model, shared)
