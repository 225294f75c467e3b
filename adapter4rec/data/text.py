"""Item text: tokenised once, kept and fetched without padding."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from adapter4rec.data.cache import Arrays, cached_arrays
from adapter4rec.data.content import Content
from adapter4rec.data.packing import Packing
from adapter4rec.utils.files import file_hash

_TOKENISED_AT_ONCE = 10_000
_BODY_CHARACTERS = 2_000
_FORM = b"tokens-1"
"""Part of the cache key; changes when the way of tokenising changes."""


@dataclass(frozen=True)
class TokenPack(Content):
    """Texts that the backbone reads at once.

    Attributes:
        token_ids: int64 ``[tokens]``, one text behind the other.
        packing: where each lies.
    """

    token_ids: Tensor
    packing: Packing

    def __len__(self) -> int:
        return len(self.packing)


@dataclass(frozen=True)
class Text(Content):
    """The texts of n items, one or several attributes each.

    Attributes:
        packs: together n x attributes texts, sorted by length.
        order: int64 ``[n * attributes]``; text ``item * attributes + attribute`` is number ``order[…]`` of
            the packs' texts.
        n_items: n.
    """

    packs: tuple[TokenPack, ...]
    order: Tensor
    n_items: int

    def __len__(self) -> int:
        return self.n_items


@dataclass(frozen=True)
class Tokens:
    """Token ids of one text for each item.

    Attributes:
        tokens: int32, flat.
        offsets: int64 ``[N + 1]``; item i has ``tokens[offsets[i - 1]:offsets[i]]``.
        identity: hash of the texts, the tokenizer and the cut.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    identity: str


class TextStore:
    """Tokens of a catalogue's texts.

    Args:
        attributes: tokens of each attribute (title; abstract and body where they are used).
        tokens_at_once: a pack of texts holds at most so many tokens; a single longer text still makes one.
    """

    def __init__(self, attributes: list[Tokens], tokens_at_once: int) -> None:
        self.attributes = attributes
        self.tokens_at_once = tokens_at_once

    @property
    def identity(self) -> str:
        """Hash of all that :meth:`fetch` gives."""
        return " ".join(attribute.identity for attribute in self.attributes)

    def costs(self) -> np.ndarray:
        """Tokens an item, all attributes together."""
        return sum(np.diff(attribute.offsets) for attribute in self.attributes)

    def fetch(self, items: np.ndarray) -> Text:
        """Tokens of ``items``, in packs of similar length."""
        packs, order = self.packed(items)
        return Text(tuple(self._pack(*pack) for pack in packs), order, len(items))

    def packed(self, items: np.ndarray) -> tuple[list[tuple[np.ndarray, np.ndarray, Packing]], Tensor]:
        """How the texts of ``items`` are laid end to end.

        Returns:
            For each pack where its tokens stand in their attribute's, and which attribute that is, int64
            ``[tokens]`` both, and its packing; and the order of :class:`Text`.
        """
        starts = np.stack([attribute.offsets[items - 1] for attribute in self.attributes], axis=1).ravel()
        stops = np.stack([attribute.offsets[items] for attribute in self.attributes], axis=1).ravel()
        lengths = stops - starts
        by_length = np.argsort(lengths, kind="stable")
        packs = []
        for first, last in pack_bounds(lengths[by_length], self.tokens_at_once):
            texts = by_length[first:last]  # text = item * attributes + attribute
            packing = Packing.of(lengths[texts])
            at = np.repeat(starts[texts], lengths[texts]) + packing.places.numpy()
            packs.append((at, np.repeat(texts % len(self.attributes), lengths[texts]), packing))
        order = np.empty_like(by_length)
        order[by_length] = np.arange(len(by_length))
        return packs, torch.from_numpy(order)

    def _pack(self, at: np.ndarray, owner: np.ndarray, packing: Packing) -> TokenPack:
        token_ids = np.empty(len(at), np.int64)
        for number, attribute in enumerate(self.attributes):
            mine = owner == number
            token_ids[mine] = attribute.tokens[at[mine]]
        return TokenPack(torch.from_numpy(token_ids), packing)


def pack_bounds(lengths: np.ndarray, most_tokens: int) -> list[tuple[int, int]]:
    """Cut texts into stretches of at most ``most_tokens`` tokens, as long as that allows.

    Args:
        lengths: int ``[n]``.
        most_tokens: the limit; a single longer text still makes a stretch.

    Returns:
        ``(first, last)`` of each stretch, half-open, in order.
    """
    stretches, first = [], 0
    ends = np.cumsum(lengths)
    while first < len(lengths):
        before = ends[first] - lengths[first]
        last = max(first + 1, int(np.searchsorted(ends, before + most_tokens, side="right")))
        stretches.append((first, last))
        first = last
    return stretches


def tokenizer_identity(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of everything that decides what the tokenizer gives for a text.

    How far texts are cut and padded is left out: each call says it, and a fast tokenizer remembers the last.
    """
    if tokenizer.is_fast:
        settings = json.loads(tokenizer.backend_tokenizer.to_str())
        settings.update(truncation=tokenizer.truncation_side, padding=None)
    else:  # written in Python: its class in this version of the library, and the files that make it up
        settings = {
            "class": type(tokenizer).__name__,
            "transformers": transformers.__version__,
            "truncation": tokenizer.truncation_side,
            "files": _saved_files(tokenizer),
        }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode("utf-8")).hexdigest()


def _saved_files(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """SHA-256 of each file that the tokenizer is saved as, by name."""
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return {path.name: file_hash(path) for path in Path(folder).iterdir()}


def tokenised(
    texts: list[str],
    tokenizer: PreTrainedTokenizerBase,
    most_tokens: int,
    cache_folder: Path | None,
    say: Callable[[str], None] = print,
) -> Tokens:
    """Tokenise lower-cased texts, special tokens included, or take them from the cache.

    Args:
        texts: one for each item.
        tokenizer: fast or slow.
        most_tokens: longer texts are cut, special tokens kept.
        cache_folder: where caches lie; None for texts that are read only once, which are not kept.
        say: is told what is done to fill a cache.
    """
    digest = hashlib.sha256(
        _FORM + tokenizer_identity(tokenizer).encode() + most_tokens.to_bytes(4, "little")
    )
    for text in texts:
        raw = text.encode("utf-8")
        digest.update(len(raw).to_bytes(8, "little") + raw)

    def compute() -> Arrays:
        if cache_folder is not None:
            say(f"tokenising {len(texts):,} texts")
        tokens, lengths = [], []
        for start in range(0, len(texts), _TOKENISED_AT_ONCE):
            lowered = [text.lower() for text in texts[start : start + _TOKENISED_AT_ONCE]]
            ids = tokenizer(lowered, truncation=True, max_length=most_tokens, return_attention_mask=False)[
                "input_ids"
            ]
            lengths.append(np.fromiter(map(len, ids), np.int64, len(ids)))
            tokens.append(np.fromiter((token for row in ids for token in row), np.int32, lengths[-1].sum()))
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
        return {"tokens": np.concatenate(tokens), "offsets": offsets}

    key = digest.hexdigest()[:32]
    arrays = cached_arrays(cache_folder / "tokens", key, compute, say) if cache_folder else compute()
    return Tokens(arrays["tokens"], np.asarray(arrays["offsets"]), key)


def shortened_body(text: str) -> str:
    """The part of a body that is tokenised at all."""
    return text[:_BODY_CHARACTERS]
