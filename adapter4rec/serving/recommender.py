"""Inference in Python: load a run folder, encode content, rank items.

::

    model = adapter4rec.load("runs/quickstart/houlsby")
    vectors = model.encode(["A steel string set for acoustic guitars"])
    model.recommend(model.clicks_of("listener1"), top_k=5)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from unicodedata import normalize

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize as unit_length
from torch.nn.functional import pad

from adapter4rec.data.images.store import ImageStore
from adapter4rec.data.settings import LoaderSettings
from adapter4rec.data.splitting import TEST, VALIDATION
from adapter4rec.evaluation.catalogue import Embeddings, encode_catalogue, evaluating
from adapter4rec.evaluation.leave_one_out import next_item_vectors
from adapter4rec.evaluation.ranking import best_items
from adapter4rec.evaluation.settings import RankingSettings
from adapter4rec.serving.candidates import Candidates, Items, RankedItems, catalogue_of
from adapter4rec.serving.contact_sheet import contact_sheet
from adapter4rec.serving.exporting import write_embeddings
from adapter4rec.serving.new_items import is_image, listed, new_items
from adapter4rec.serving.trained_runs import TrainedRun
from adapter4rec.utils.errors import UserError, nearest
from adapter4rec.utils.process_group import Process
from adapter4rec.utils.settings import options_of

SHOWN_USERS = 5
"""Users that are shown where none are named."""
HISTORIES = (VALIDATION, TEST, "all")
"""The clicks that user vectors are computed from: those before a target, or all."""


class Recommender:
    """A trained model that encodes content and ranks items. The catalogue is encoded on first use.

    Attributes:
        run: settings, data and model of the finished run.
        process: process and device to compute on.
        precision: number format in which items are encoded.
        candidates: the ranked items, numbered from 1; by default the run's catalogue.
        interactions: interactions of the run.
    """

    def __init__(
        self,
        run: TrainedRun,
        process: Process,
        precision: str = "fp32",
        candidates: Candidates | None = None,
    ) -> None:
        self.run = run
        self.process = process
        self.precision = precision
        self.interactions = run.domain.interactions
        self.candidates = candidates or Candidates([catalogue_of(run)])

    def __repr__(self) -> str:
        method, items, users = self.run.settings.method, len(self.candidates.names), self.interactions.n_users
        return f"Recommender({self.run.folder}: {method}, {items:,} items, {users:,} users)"

    @cached_property
    def items(self) -> Embeddings:
        """Embeddings of all candidates, numbered from 1."""
        for part in self.candidates.parts:
            if part.rows is None:
                part.rows = self._encoded(part)
        rows = torch.cat([part.rows for part in self.candidates.parts if part.rows is not None])
        return Embeddings(pad(rows, (0, 0, 1, 0)))

    def encode(self, contents: Iterable[object]) -> Tensor:
        """Encode content as item embeddings.

        Args:
            contents: n entries. Text runs take titles; with several attributes, tuples in the order of
                ``run.settings.attributes``, or dicts. Image runs take paths of image files, or PIL images.

        Returns:
            float32 ``[n, d]``, on the CPU. Content equal to that of a catalogue item has its embedding.

        Raises:
            UserError: the run is an id tower, an entry has the wrong type, or an image cannot be decoded.
        """
        given = listed(contents, "contents")
        if not given:
            return torch.zeros(0, self.run.model.user_encoder.width)
        labels = [f"content {number} of {len(given)}" for number in range(1, len(given) + 1)]
        return self._encoded(new_items(self.run, labels, given, labels)).cpu()

    def with_items(self, items: Mapping[str, object] | Items) -> Recommender:
        """A new recommender with additional candidates, which may also occur in histories.

        The model and the embeddings computed so far are shared. Items that are candidates already, with the
        same name and content, are not added again.

        Args:
            items: content by item name, as :meth:`encode` takes it, or the result of ``read_new_items``.

        Raises:
            UserError: the run is an id tower, a name is empty, contains spaces or control characters, or is
                already used with different content, or see :meth:`encode`.
        """
        if not isinstance(items, Items):
            names = [normalize("NFC", name) if isinstance(name, str) else name for name in items]
            labels = [f"item {name!r}" for name in names]
            items = new_items(self.run, names, list(items.values()), labels)
        return Recommender(self.run, self.process, self.precision, self.candidates.with_items(items))

    def similar(self, item: object, top_k: int = 10) -> RankedItems:
        """The candidates whose embeddings are nearest to that of an item, by cosine similarity.

        Args:
            item: name of a candidate, or content (see :meth:`recommend`).
            top_k: number of items to return, without the item itself.

        Raises:
            UserError: the item is not a candidate and not an image, or ``top_k`` is less than 1.
        """
        self.require(top_k, only_new=False)
        model, (number,) = self.with_contents([item])
        rows = unit_length(model.items.rows[1:], dim=1)
        scores = rows @ rows[number - 1]
        scores[number - 1] = -torch.inf
        best = torch.topk(scores, min(top_k, len(self.candidates.names) - (model is self)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return RankedItems(model.candidates.ranked(row + 1, score) for row, score in pairs)

    def sheet(self, users: Iterable[str] | None = None, top_k: int = 8) -> Image.Image:
        """A contact sheet: an image of the clicks of users and their recommendations, with names and scores.

        A notebook displays it; ``save`` writes it to a file.

        Args:
            users: names of users; by default the first five.
            top_k: number of recommendations per user.

        Raises:
            UserError: a run without images, or see :meth:`history_of`.
        """
        if not isinstance(self.run.domain.store, ImageStore):
            raise UserError(f"{self.run.folder} is not an image run")
        names = self.interactions.user_names[:SHOWN_USERS] if users is None else listed(users, "user names")
        if not names:
            raise UserError(f"{self.run.folder}: no users to draw")
        histories = [self.history_of(name) for name in names]
        found = self.best_for(histories, top_k)
        return contact_sheet(self.candidates, list(zip(names, histories, strict=True)), found)

    def with_contents(self, items: Sequence[object]) -> tuple[Recommender, np.ndarray]:
        """A recommender that has these items, and their numbers, int64 ``[len(items)]``.

        Args:
            items: names of candidates, or contents, which become new items: dicts or tuples of texts, or
                paths of image files and PIL images (see :meth:`encode`).

        Raises:
            UserError: an item is neither.
        """
        given: dict[str, object] = {}
        names = []
        for item in items:
            name = item if isinstance(item, str) else repr(item)
            known = name in self.candidates.number_of
            if not known and self._is_content(item):
                name = f"content-{len(self.candidates.names) + len(given) + 1}"
                given[name] = item
            names.append(name)
        model = self.with_items(given) if given else self
        return model, model.item_numbers_of(names)

    def _is_content(self, item: object) -> bool:
        images = isinstance(self.run.domain.store, ImageStore)
        return is_image(item) if images else isinstance(item, Mapping | tuple)

    def recommend(self, history: Iterable[object], top_k: int = 10, *, only_new: bool = False) -> RankedItems:
        """Rank the candidates for a click history.

        Args:
            history: item names, oldest first. The model reads the last L; none of them is recommended. Also
                contents of items never seen: dicts such as ``{"title": "…"}``, tuples of texts, or images.
            top_k: number of items to return; fewer if there are not enough candidates.
            only_new: rank only the items added by :meth:`with_items`.

        Raises:
            UserError: an item is not a candidate, ``top_k`` is less than 1, or there are no new items.
        """
        clicked = listed(history, "item names (clicks_of gives those of a user)")
        self.require(top_k, only_new=only_new)
        model, numbers = self.with_contents(clicked)
        return model.best_for([numbers], top_k, only_new=only_new)[0]

    def clicks_of(self, user: str) -> list[str]:
        """Names of the items that a user clicked, oldest first. A run keeps the last L + 3 clicks.

        Raises:
            UserError: see :meth:`history_of`.
        """
        return [self.candidates.names[item - 1] for item in self.history_of(user)]

    def export(self, path: Path | str, *, split: str = "test", only_new: bool = False) -> None:
        """Write embeddings of all candidates and next-item vectors of all users, with their names.

        ::

            embeddings.safetensors    items [N, d] and users [U, d], float32
            embeddings.items.tsv      name<TAB>title of each row of ``items``; new items come last
            embeddings.users.tsv      name of each row of ``users``

        ``items @ users.T`` are the scores by which items are ranked; clicked items are not masked. The
        metadata of the safetensors file records the split. A ``.parquet`` file has the columns ``item``,
        ``title`` and ``vector``, and ``NAME.users.parquet`` next to it ``user`` and ``vector``.

        Args:
            path: a ``.safetensors`` or ``.parquet`` file.
            split: see :meth:`user_vectors`.
            only_new: export only the new items.

        Raises:
            UserError: the path has another ending, the split is unknown, there are no new
                items, or a user vector is not finite.
        """
        write_embeddings(self, Path(path), split=split, only_new=only_new)

    def user_vectors(self, split: str = "test") -> Tensor:
        """Next-item vectors of all users, in the order of ``interactions.user_names``.

        Args:
            split: which clicks are read. ``test``: those before the test target, as in the reported metrics;
                ``validation``: those before the validation target; ``all``: all kept clicks. With a split
                in time, users without a target are read up to the start of validation or test.

        Returns:
            float32 ``[U, d]``, on the CPU.

        Raises:
            UserError: the split is unknown, or a vector is not finite.
        """
        if split not in HISTORIES:
            raise UserError(f"split {split!r}: {nearest(split, list(HISTORIES))}")
        offsets, clicks = self.interactions.offsets, self.interactions.clicks
        stops = offsets[1:] if split == "all" else self.interactions.split.stops(split)
        read = [clicks[start:stop] for start, stop in zip(offsets[:-1], stops, strict=True)]
        vectors = self.vectors_of(read).cpu()
        if not torch.isfinite(vectors).all():
            raise UserError("non-finite user vectors: the model contains NaN or inf")
        return vectors

    def history_of(self, user: str) -> np.ndarray:
        """Item numbers of the clicks of a user, oldest first.

        Raises:
            UserError: the user is unknown or has too few clicks.
        """
        names, user = self.interactions.user_names, normalize("NFC", user)
        if not names:
            raise UserError(f"{self.run.folder}: a bundle has no users; pass a history of items")
        if user not in names:
            raise UserError(
                f"user {user!r} is not in {self.run.settings.users}, or has fewer than "
                f"{self.run.settings.min_seq_len} clicks"
            )
        return self.history(names.index(user))

    def history(self, user: int) -> np.ndarray:
        """Item numbers of the clicks of the user with this index, oldest first."""
        offsets = self.interactions.offsets
        return self.interactions.clicks[offsets[user] : offsets[user + 1]]

    def item_numbers_of(self, names: Sequence[str]) -> np.ndarray:
        """Item numbers of item names.

        Raises:
            UserError: an item is not a candidate.
        """
        numbers = []
        for name in names:
            number = self.candidates.number_of.get(normalize("NFC", name))
            if number is None:
                raise UserError(self._unknown(name))
            numbers.append(number)
        return np.array(numbers, np.int64)

    def _unknown(self, name: str) -> str:
        """Why an item is not in the catalogue."""
        store, raw = self.run.domain.store, normalize("NFC", name).encode("utf-8", "surrogateescape")
        if isinstance(store, ImageStore) and (fault := store.fault_of(raw)):
            return f"item {name!r} is not in the catalogue: it has no usable image ({fault})"
        file = ", and there is no such image file" if isinstance(store, ImageStore) else ""
        hint = nearest(name, self.candidates.names)
        hint = hint if hint.startswith("did") else f"there is, for example, {self.candidates.names[0]!r}"
        return (
            f"item {name!r} is not in the catalogue of {self.run.folder}{file}; {hint}; items without clicks "
            "are new items"
        )

    def vectors_of(self, histories: Sequence[np.ndarray]) -> Tensor:
        """Next-item vectors of n histories (item numbers), float32 ``[n, d]``. Reads the last L clicks."""
        length = self.interactions.max_seq_len
        inputs = np.zeros((len(histories), length), np.int64)
        for row, history in enumerate(histories):
            recent = history[-length:]
            inputs[row, length - len(recent) :] = recent
        with evaluating(self.run.model):
            return next_item_vectors(self.run.model, self.items, inputs)

    def best_for(
        self, histories: Sequence[np.ndarray], top_k: int, *, only_new: bool = False
    ) -> list[RankedItems]:
        """The ``top_k`` recommendations for each history.

        Args:
            histories: item numbers of each user, oldest first.
            top_k: number of items per user.
            only_new: rank only the new items.

        Raises:
            UserError: ``top_k`` is less than 1, or ``only_new`` and there are no new items.
        """
        self.require(top_k, only_new=only_new)
        candidates = self.candidates
        before = candidates.n_known if only_new else 0
        excluded = [history[history > before] - before for history in histories]
        ranked = Embeddings(self.items.rows[before:])
        numbers, scores = best_items(self.vectors_of(histories), ranked, excluded, top_k)
        return [
            RankedItems(
                candidates.ranked(item, float(score))
                for item, score in zip((items + before).tolist(), values, strict=True)
                if np.isfinite(score)
            )
            for items, values in zip(numbers, scores, strict=True)
        ]

    def require(self, top_k: int, *, only_new: bool) -> None:
        """Raise a UserError if ``top_k`` is less than 1, or if ``only_new`` and there are no new items."""
        if top_k < 1:
            raise UserError(f"--top-k {top_k}: must be at least 1")
        if only_new and not self.candidates.n_new:
            raise UserError("no new items to rank: pass items that are not in the catalogue")

    def _encoded(self, items: Items) -> Tensor:
        """Embeddings of items, float32 ``[n, d]``."""
        of_loader = {name: getattr(self.run.settings, name) for name in options_of(LoaderSettings)}
        settings = RankingSettings(**of_loader, evaluation_precision=self.precision)
        with evaluating(self.run.model):
            return encode_catalogue(self.run.model, items, len(items.names), self.process, settings).rows[1:]
