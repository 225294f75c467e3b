"""Item texts: tokenised once, cached, and batched without padding."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from adapter4rec.data.content import Content
from adapter4rec.data.packing import Packing
from adapter4rec.utils.checkpoint_file import writing_tensors
from adapter4rec.utils.files import atomic_file, file_hash, is_intact, utf8_path, write_hash

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Arrays = dict[str, np.ndarray]

_TEXTS_PER_CALL = 10_000
BODY_CHARACTERS = 2_000
_CHARACTERS = 100_000
"""Further characters of a text are not tokenised: a tokenizer takes hundreds of bytes for each."""
_TOKENIZING = threading.Lock()
_FORM = b"tokens-1"
"""Version in the cache key; change it when tokenisation changes."""


@dataclass(frozen=True)
class Pack(Content):
    """Concatenated texts for one call of the backbone.

    Attributes:
        packing: positions of the texts.
        values: token ids, int64 ``[tokens]``, or hidden states of some layers, float ``[tokens, layers, h]``.
    """

    packing: Packing
    values: Tensor


@dataclass(frozen=True)
class Text(Content):
    """Tokens, or cached hidden states, of the texts of n items with one or several attributes each.

    Attributes:
        packs: packs of texts, n x attributes texts in total, sorted by length.
        order: int64 ``[n * attributes]``; ``order[item * attributes + attribute]`` is the index of a text in
            the concatenated packs.
        n_items: number of items n.
        layers: indices of the layers of the hidden states; empty for tokens.
    """

    packs: tuple[Pack, ...]
    order: Tensor
    n_items: int
    layers: tuple[int, ...] = ()

    def __len__(self) -> int:
        return self.n_items


@dataclass(frozen=True)
class Tokens:
    """Token ids of one attribute for all items.

    Attributes:
        tokens: int32 ``[tokens]``, concatenated texts.
        offsets: int64 ``[N + 1]``; the text of item i is ``tokens[offsets[i - 1]:offsets[i]]``.
        identity: hash of the texts, the tokenizer and the maximum length; empty without a cache.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    identity: str


class TextStore:
    """Tokenised texts of all items.

    Args:
        attributes: tokens of each attribute (title, and optionally abstract and body).
        tokens_at_once: maximum tokens per pack; a longer text gets its own pack.
    """

    def __init__(self, attributes: list[Tokens], tokens_at_once: int) -> None:
        self.attributes = attributes
        self.tokens_at_once = tokens_at_once
        one = len(attributes) == 1  # whose tokens are not copied
        self._tokens = attributes[0].tokens if one else np.concatenate([each.tokens for each in attributes])
        begins = np.cumsum([0, *(len(each.tokens) for each in attributes[:-1])])
        # int64 [N + 1, attributes]
        self._offsets = np.stack([each.offsets for each in attributes], axis=1) + begins

    @property
    def identity(self) -> str:
        """Hash of the content of all items."""
        return " ".join(attribute.identity for attribute in self.attributes)

    def costs(self, items: np.ndarray) -> np.ndarray:
        """Tokens of each of ``items``, summed over attributes, int64 ``[n]``."""
        costs: np.ndarray = (self._offsets[items] - self._offsets[items - 1]).sum(axis=1)
        return costs

    def fetch(self, items: np.ndarray) -> Text:
        """Tokens of ``items``, in packs of texts of similar length."""
        packs, order = self.packed(items)
        texts = (Pack(packing, torch.from_numpy(self._tokens[at]).long()) for at, packing in packs)
        return Text(tuple(texts), order, len(items))

    def packed(self, items: np.ndarray) -> tuple[list[tuple[np.ndarray, Packing]], Tensor]:
        """Assign the texts of ``items`` to packs.

        Returns:
            A list of packs and the order (see :class:`Text`). A pack consists of the index of each token in
            the concatenated tokens of all attributes, int64 ``[tokens]``, and the packing.
        """
        starts = self._offsets[items - 1].ravel()
        lengths = self._offsets[items].ravel() - starts
        by_length = np.argsort(lengths, kind="stable")
        packs = []
        for first, last in pack_bounds(lengths[by_length], self.tokens_at_once):
            texts = by_length[first:last]  # text = item * attributes + attribute
            packing = Packing.of(lengths[texts])
            packs.append((np.repeat(starts[texts], lengths[texts]) + packing.places.numpy(), packing))
        order = np.empty_like(by_length)
        order[by_length] = np.arange(len(by_length))
        return packs, torch.from_numpy(order)


def pack_bounds(lengths: np.ndarray, most_tokens: int) -> list[tuple[int, int]]:
    """Greedily split a list of texts into packs of at most ``most_tokens`` tokens.

    Args:
        lengths: text lengths, int ``[n]``.
        most_tokens: maximum tokens per pack; a longer text gets its own pack.

    Returns:
        Half-open range ``(first, last)`` of each pack, in order.
    """
    bounds, first = [], 0
    ends = np.cumsum(lengths)
    while first < len(lengths):
        before = ends[first] - lengths[first]
        last = max(first + 1, int(np.searchsorted(ends, before + most_tokens, side="right")))
        bounds.append((first, last))
        first = last
    return bounds


def tokenizer_identity(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of the tokenizer's definition.

    Truncation and padding lengths are excluded: they are arguments of each call, and a fast tokenizer stores
    those of the last call.
    """
    if tokenizer.is_fast:
        settings = json.loads(tokenizer.backend_tokenizer.to_str())
        settings.update(truncation=tokenizer.truncation_side, padding=None)
    else:  # a Python tokenizer is defined by its class, the library version and its files
        with TemporaryDirectory() as folder:
            tokenizer.save_pretrained(folder)
            files = {path.name: file_hash(path) for path in Path(folder).iterdir()}
        settings = {
            "class": type(tokenizer).__name__,
            "transformers": version("transformers"),
            "truncation": tokenizer.truncation_side,
            "files": files,
        }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode("utf-8")).hexdigest()


def tokenise(
    texts: list[str],
    tokenizer: PreTrainedTokenizerBase,
    most_tokens: int,
    cache_folder: Path | None,
    log: Callable[[str], None] = print,
) -> Tokens:
    """Lower-case and tokenise texts, with special tokens, or load the tokens from the cache.

    Args:
        texts: one text per item.
        tokenizer: fast or slow tokenizer.
        most_tokens: maximum tokens, special tokens included; longer texts are truncated.
        cache_folder: cache folder; None for no cache.
        log: prints progress messages.
    """

    def compute() -> Arrays:
        if cache_folder is not None:
            log(f"tokenising {len(texts):,} texts")
        tokens, lengths = [], []
        for start in range(0, len(texts), _TEXTS_PER_CALL):
            lowered = [text[:_CHARACTERS].lower() for text in texts[start : start + _TEXTS_PER_CALL]]
            with _TOKENIZING:  # the length is a state of the tokenizer, which threads share
                encoded = tokenizer(
                    lowered, truncation=True, max_length=most_tokens, return_attention_mask=False
                )
            ids = encoded["input_ids"]
            lengths.append(np.fromiter(map(len, ids), np.int64, len(ids)))
            tokens.append(np.fromiter((token for row in ids for token in row), np.int32, lengths[-1].sum()))
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
        return {"tokens": np.concatenate(tokens), "offsets": offsets}

    if cache_folder is None:  # as for a new item: hashing the tokenizer takes longer than encoding the item
        return Tokens(**compute(), identity="")
    digest = hashlib.sha256(
        _FORM + tokenizer_identity(tokenizer).encode() + most_tokens.to_bytes(4, "little")
    )
    for text in texts:
        raw = text.encode("utf-8")
        digest.update(len(raw).to_bytes(8, "little") + raw)
    key = digest.hexdigest()[:32]
    arrays = cached_arrays(cache_folder / "tokens" / f"{key}.safetensors", compute, log)
    return Tokens(arrays["tokens"], arrays["offsets"], key)


def cached_arrays(path: Path, compute: Callable[[], Arrays], log: Callable[[str], None] = print) -> Arrays:
    """Load arrays from a safetensors file, or compute and write them. A damaged file is computed again.

    Args:
        path: the file; its name is the hash of the inputs.
        compute: computes the arrays, by name.
        log: prints messages.
    """
    if is_intact(path):
        with utf8_path(path) as file:
            return load_file(file)
    if path.exists():
        log(f"warning: {path}: damaged cache entry; computing it again")
        if not path.is_dir():
            path.unlink()
    arrays = compute()
    with atomic_file(path) as temporary:
        with writing_tensors(temporary) as file:
            save_file(arrays, file)
        write_hash(path, temporary)
    return arrays


def truncate_body(text: str) -> str:
    """The first characters of a body; the rest is beyond the maximum length and is not tokenised."""
    return text[:BODY_CHARACTERS]
