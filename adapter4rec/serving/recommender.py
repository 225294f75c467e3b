"""A trained model in a notebook: one line from a run's folder to a model that encodes and ranks.

::

    model = adapter4rec.load("runs/quickstart/houlsby")
    vectors = model.encode(["A steel string set for acoustic guitars"])
    model.recommend(model.clicks_of("listener1"), top_k=5)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from adapter4rec.data.content import ContentStore
from adapter4rec.evaluation.catalogue import Embeddings, EncodeConfig, evaluating
from adapter4rec.evaluation.leave_one_out import encode_all_items, next_item_vectors
from adapter4rec.evaluation.ranking import best_items
from adapter4rec.serving.candidates import Candidates
from adapter4rec.serving.export import Exported, export_embeddings
from adapter4rec.serving.given_items import GivenItems, content_store, given_items, listed, require_content
from adapter4rec.serving.trained_runs import TrainedRun, load_run
from adapter4rec.utils.errors import UserError, nearest
from adapter4rec.utils.process_group import Process, single_process
from adapter4rec.utils.settings import PRECISIONS

USERS_AT_ONCE = 256
HELD_OUT = {"validation": 2, "test": 1, "all": 0}
"""Number of last clicks that each split holds out of a user's history."""


def load(
    run_folder: Path | str,
    *,
    device: str = "auto",
    precision: str = "fp32",
    users: Path | str | None = None,
    items: Path | str | None = None,
    images: Path | str | None = None,
    backbone: str | None = None,
    source_checkpoint: Path | str | None = None,
) -> Recommender:
    """The model of a finished run, on a source or a target domain, with texts, images or bare ids.

    Args:
        run_folder: of the run.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        precision: the number format in which items are encoded: fp32, bf16, fp16 or auto.
        users: where the run's ``users.tsv`` lies, if elsewhere than when it ran.
        items: the same of its ``items.tsv``.
        images: of its LMDB.
        backbone: of its backbone.
        source_checkpoint: of the model that it started from.

    Raises:
        UserError: no run, a run without a model, or files that are gone or are not those of the run.
    """
    if precision not in PRECISIONS:
        raise UserError(f"precision {precision!r}: {nearest(precision, list(PRECISIONS))}")
    moved = {"users": users, "items": items, "images": images, "backbone": backbone}
    moved["source_checkpoint"] = source_checkpoint
    process = single_process(device)
    return Recommender(load_run(Path(run_folder), process, moved), process, precision)


@dataclass(frozen=True)
class Recommendation:
    """The best items for a user.

    Attributes:
        user: whose; a name, or what stands for it.
        history: item numbers, oldest first.
        items: item numbers, best first.
        scores: of these.
    """

    user: str
    history: np.ndarray
    items: np.ndarray
    scores: np.ndarray


class RankedItem(NamedTuple):
    """A recommended item; ``title`` is empty where there is none, ``new`` of those not in the catalogue."""

    item: str
    title: str
    score: float
    new: bool


class RankedItems(list[RankedItem]):
    """Recommended items, best first; printed a line each, and ``pandas.DataFrame(items)`` is a table."""

    def __repr__(self) -> str:
        return "\n".join(
            f"{rank:>3}. {one.score:8.3f}  {one.item}  {one.title}{'  (new)' * one.new}".rstrip()
            for rank, one in enumerate(self, 1)
        )


class Recommender:
    """A trained model, which encodes its catalogue when it is first asked to rank.

    Attributes:
        run: the finished run: its settings, data and model.
        process: where it is computed.
        precision: the number format in which items are encoded.
        candidates: what is ranked; items have the numbers 1… of these.
        interactions: of the run.

    Args:
        candidates: by default the run's catalogue; the others are attributes.
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
        self.candidates = candidates or Candidates.of_run(run, self._embedded)

    def __repr__(self) -> str:
        new = len(self.candidates.names) - self.candidates.n_known
        beside = f" and {new:,} new ones" if new else ""
        return (
            f"Recommender({self.run.folder}: {self.run.settings.method}, {self.candidates.n_known:,} items"
            f"{beside}, {self.interactions.n_users:,} users, on {self.process.device})"
        )

    @property
    def items(self) -> Embeddings:
        """Embeddings of all candidates, under their numbers 1…."""
        return self.candidates.embeddings()

    def encode(self, contents: Iterable[Any]) -> Tensor:
        """Embeddings of contents, float32 ``[n, d]``, on the CPU; equal to those of equal items.

        Args:
            contents: for text runs titles; for runs on several attributes tuples in the order of
                ``run.settings.attributes``, or dicts by their names. For image runs paths of image files, or
                PIL images.

        Raises:
            UserError: an id tower, which has no content to encode; content of another kind; a broken image.
        """
        require_content(self.run)
        contents = listed(contents, "contents")
        if not contents:
            return torch.zeros(0, self.run.model.user_encoder.width)
        labels = [f"content {number} of {len(contents)}" for number in range(1, len(contents) + 1)]
        store = content_store(self.run, contents, labels)
        return self._embedded(store, len(contents)).stretch(1, len(contents) + 1).cpu()

    def with_items(self, items: Mapping[str, Any] | GivenItems) -> Recommender:
        """A recommender that ranks further items beside these, and knows them in histories.

        The model, and what it has encoded already, are shared. An item whose name and content are here
        already is the one that is here.

        Args:
            items: content by name, as :meth:`encode` takes it; or what ``read_given_items`` gave.

        Raises:
            UserError: an id tower; a name that is here already with other content; as :meth:`encode`.
        """
        require_content(self.run)
        given = items if isinstance(items, GivenItems) else given_items(self.run, items)
        candidates = self.candidates.beside(given, self._embedded)
        return Recommender(self.run, self.process, self.precision, candidates)

    def recommend(self, history: Iterable[str], top_k: int = 10, *, only_new: bool = False) -> RankedItems:
        """The items that somebody with this history is most likely to click next, best first.

        Args:
            history: names of items, oldest first; the last L count. None of them is recommended again.
            top_k: how many; fewer where there are no more.
            only_new: rank only the items that :meth:`with_items` added.

        Raises:
            UserError: an item is no candidate; ``top_k`` is less than 1; there are no new items.
        """
        numbers = self.numbers_of(listed(history, "item names (clicks_of gives those of a user)"))
        (found,) = self.best_for([("", numbers)], top_k, only_new=only_new)
        shown = self.candidates
        return RankedItems(
            RankedItem(shown.names[item - 1], shown.title(item), float(score), shown.is_new(item))
            for item, score in zip(found.items.tolist(), found.scores, strict=True)
        )

    def clicks_of(self, user: str) -> list[str]:
        """Names of the items that a user clicked, oldest first: the last L + 3, as the run keeps them.

        Raises:
            UserError: as :meth:`history_of`.
        """
        return [self.candidates.names[item - 1] for item in self.history_of(user)]

    def export(self, path: Path | str, *, split: str = "test", only_new: bool = False) -> Exported:
        """Write item embeddings and user vectors with their names; see ``export.export_embeddings``."""
        return export_embeddings(self, Path(path), split=split, only_new=only_new)

    def user_vectors(self, split: str = "test") -> Tensor:
        """Next-item vectors of all users, float32 ``[U, d]``, on the CPU.

        Rows are in the order of ``interactions.user_names``.

        Args:
            split: which clicks are read. ``test``: those before the test target, as in the reported test;
                ``validation``: those before the validation target; ``all``: every kept click, to predict
                the next one.

        Raises:
            UserError: another split, or a vector that is not finite.
        """
        return torch.cat([vectors.cpu() for vectors in self.blocks_of_user_vectors(split)])

    def blocks_of_user_vectors(self, split: str) -> Iterator[Tensor]:
        """As :meth:`user_vectors`, for some users at a time, on the device of the model."""
        if split not in HELD_OUT:
            raise UserError(f"split {split!r}: {nearest(split, list(HELD_OUT))}")
        count, held_out = self.interactions.n_users, HELD_OUT[split]
        for first in range(0, count, USERS_AT_ONCE):
            histories = [self.history(user) for user in range(first, min(first + USERS_AT_ONCE, count))]
            vectors = self.vectors_of([history[: len(history) - held_out] for history in histories])
            if not torch.isfinite(vectors).all():
                raise UserError("non-finite user vectors: the model contains NaN or inf")
            yield vectors

    def history_of(self, user: str) -> np.ndarray:
        """The kept clicks of a user by name, item numbers.

        Raises:
            UserError: there is no such user, or none with enough clicks.
        """
        names = self.interactions.user_names
        if user not in names:
            raise UserError(
                f"user {user!r} is not in {self.run.settings.users}, or has fewer than "
                f"{self.run.settings.min_seq_len} clicks; users are called {names[0]!r}, {names[-1]!r} …"
            )
        return self.history(names.index(user))

    def history(self, user: int) -> np.ndarray:
        """The kept clicks of the user of this row, item numbers, oldest first."""
        offsets = self.interactions.offsets
        return self.interactions.clicks[offsets[user] : offsets[user + 1]]

    def numbers_of(self, names: Sequence[str]) -> np.ndarray:
        """Item numbers of a list of item names.

        Raises:
            UserError: an item is no candidate.
        """
        number_of, known = self.candidates.number_of, self.candidates.names
        for name in names:
            if name not in number_of:
                raise UserError(
                    f"item {name!r} is not in the catalogue of {self.run.folder} (items that no user clicked "
                    f"are left out of it, and can be given as new ones); items are called {known[0]!r}, "
                    f"{known[-1]!r} …"
                )
        return np.array([number_of[name] for name in names], np.int64)

    def vectors_of(self, histories: Sequence[np.ndarray]) -> Tensor:
        """Next-item vectors of histories of item numbers, float32 ``[n, d]``; the last L clicks count."""
        length = self.interactions.max_seq_len
        inputs = np.zeros((len(histories), length), np.int64)
        for row, history in enumerate(histories):
            recent = history[-length:]
            inputs[row, length - len(recent) :] = recent
        with evaluating(self.run.model):
            return next_item_vectors(self.run.model, self.items, inputs)

    def best_for(
        self, users: Sequence[tuple[str, np.ndarray]], top_k: int, *, only_new: bool = False
    ) -> list[Recommendation]:
        """The ``top_k`` items that these users, given as (name, item numbers), are most likely to click next.

        Raises:
            UserError: ``top_k`` is less than 1, or there are no new items to rank alone.
        """
        self.require(top_k, only_new=only_new)
        before = self.candidates.n_known if only_new else 0
        excluded = [history[history > before] - before for _, history in users]
        vectors = self.vectors_of([history for _, history in users])
        numbers, scores = best_items(vectors, self.candidates.embeddings(only_new=only_new), excluded, top_k)
        return [
            Recommendation(name, history, items[kept := np.isfinite(values)] + before, values[kept])
            for (name, history), items, values in zip(users, numbers, scores, strict=True)
        ]

    def for_all(self, top_k: int, *, only_new: bool = False) -> Iterator[Recommendation]:
        """Recommendations for every user, in the order of the file."""
        names = self.interactions.user_names
        with tqdm(total=len(names), unit="user", leave=False, mininterval=2) as bar:
            for first in range(0, len(names), USERS_AT_ONCE):
                some = range(first, min(first + USERS_AT_ONCE, len(names)))
                users = [(names[user], self.history(user)) for user in some]
                yield from self.best_for(users, top_k, only_new=only_new)
                bar.update(len(some))

    def require(self, top_k: int, *, only_new: bool) -> None:
        """Raise a UserError where no item is asked for, or only new ones are, and there are none."""
        if top_k < 1:
            raise UserError(f"top-k {top_k}: must be at least 1")
        if only_new and len(self.candidates.parts) == 1:
            raise UserError("there are no new items to rank: none was given that is not in the catalogue")

    def _embedded(self, store: ContentStore, n_items: int) -> Embeddings:
        how = replace(EncodeConfig.of(self.run.settings, self.process), precision=self.precision)
        with evaluating(self.run.model):
            return encode_all_items(self.run.model, store, n_items, self.process, how)
