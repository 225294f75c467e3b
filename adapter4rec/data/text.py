"""Item text: tokenised once, kept without padding, fetched in groups of similar length."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from adapter4rec.data.cache import Arrays, cached_arrays
from adapter4rec.data.content import Content

_TOKENISED_AT_ONCE = 10_000
_BODY_CHARACTERS = 2_000
_FORM = b"tokens-1"
"""Part of the cache key; changes when the way of tokenising changes."""


@dataclass(frozen=True)
class TokenGroup(Content):
    """Texts of similar length.

    Attributes:
        token_ids: int64 ``[n, longest]``, padded on the right.
        attention_mask: bool ``[n, longest]``, or None where all texts of the group are equally long.
    """

    token_ids: Tensor
    attention_mask: Tensor | None

    def __len__(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True)
class Text(Content):
    """The texts of n items, one or several attributes each.

    Attributes:
        groups: together n x attributes texts, sorted by length.
        order: int64 ``[n * attributes]``; text ``item * attributes + attribute`` is row ``order[…]`` of the
            groups' concatenation.
        n_items: n.
    """

    groups: tuple[TokenGroup, ...]
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
        pad_token_id: fills the short rows of a group.
        group_tokens: a group of texts of similar length holds at most so many tokens, padding included.
    """

    def __init__(self, attributes: list[Tokens], pad_token_id: int, group_tokens: int) -> None:
        self.attributes = attributes
        self.pad_token_id = pad_token_id
        self.group_tokens = group_tokens

    @property
    def identity(self) -> str:
        """Hash of all that :meth:`fetch` gives."""
        return " ".join(attribute.identity for attribute in self.attributes)

    def costs(self) -> np.ndarray:
        """Tokens an item, all attributes together."""
        return sum(np.diff(attribute.offsets) for attribute in self.attributes)

    def fetch(self, items: np.ndarray) -> Text:
        """Tokens of ``items``, in groups of similar length."""
        starts = np.stack([attribute.offsets[items - 1] for attribute in self.attributes], axis=1).ravel()
        stops = np.stack([attribute.offsets[items] for attribute in self.attributes], axis=1).ravel()
        lengths = stops - starts
        by_length = np.argsort(lengths, kind="stable")
        groups = tuple(
            self._group(by_length[first:last], starts, lengths)
            for first, last in groups_of_similar_length(lengths[by_length], self.group_tokens)
        )
        order = np.empty_like(by_length)
        order[by_length] = np.arange(len(by_length))
        return Text(groups, torch.from_numpy(order), len(items))

    def _group(self, members: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> TokenGroup:
        """Gather the tokens of the texts ``members`` (text = item * attributes + attribute)."""
        longest = int(lengths[members].max())
        places = np.arange(longest)
        real = places < lengths[members, None]
        token_ids = np.full(real.shape, self.pad_token_id, np.int64)
        for number, attribute in enumerate(self.attributes):
            mine = members % len(self.attributes) == number
            at = starts[members[mine], None] + places
            token_ids[mine] = attribute.tokens[np.minimum(at, len(attribute.tokens) - 1)]
        token_ids[~real] = self.pad_token_id
        mask = None if real.all() else torch.from_numpy(real)
        return TokenGroup(torch.from_numpy(token_ids), mask)


def groups_of_similar_length(sorted_lengths: np.ndarray, most_tokens: int) -> list[tuple[int, int]]:
    """Cut texts that are sorted by length into stretches of at most ``most_tokens`` places.

    A stretch also ends where taking in longer texts would pad those already in it by more than an eighth
    of its places: a group of its own costs less than that padding.

    Args:
        sorted_lengths: int ``[n]``, ascending.
        most_tokens: the limit; a single longer text still makes a group.

    Returns:
        ``(first, last)`` of each stretch, half-open, in order.
    """
    lengths = sorted_lengths.tolist()
    groups, first, real = [], 0, 0
    for last, length in enumerate(lengths):
        count = last - first
        places = (count + 1) * length
        padding = places - real - length
        if count and (places > most_tokens or padding * 8 > places):
            groups.append((first, last))
            first, real = last, 0
        real += length
    if lengths:
        groups.append((first, len(lengths)))
    return groups


def tokenizer_identity(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of everything that decides what the fast tokenizer gives for a text.

    How far texts are cut and padded is left out: each call says it, and the tokenizer remembers the last.
    """
    settings = json.loads(tokenizer.backend_tokenizer.to_str())
    settings.update(truncation=tokenizer.truncation_side, padding=None)
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode("utf-8")).hexdigest()


def tokenised(
    texts: list[str],
    tokenizer: PreTrainedTokenizerBase,
    most_tokens: int,
    cache_folder: Path,
    say: Callable[[str], None] = print,
) -> Tokens:
    """Tokenise lower-cased texts, special tokens included, or take them from the cache.

    Args:
        texts: one for each item.
        tokenizer: a fast tokenizer.
        most_tokens: longer texts are cut, special tokens kept.
        cache_folder: where caches lie.
        say: is told what happens.
    """
    digest = hashlib.sha256(
        _FORM + tokenizer_identity(tokenizer).encode() + most_tokens.to_bytes(4, "little")
    )
    for text in texts:
        raw = text.encode("utf-8")
        digest.update(len(raw).to_bytes(8, "little") + raw)

    def compute() -> Arrays:
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
    arrays = cached_arrays(cache_folder / "tokens", key, compute, say)
    return Tokens(arrays["tokens"], np.asarray(arrays["offsets"]), key)


def shortened_body(text: str) -> str:
    """The part of a body that is tokenised at all."""
    return text[:_BODY_CHARACTERS]
