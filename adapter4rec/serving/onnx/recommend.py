"""Recommendations from an ONNX export, with onnxruntime and NumPy alone.

::

    pip install onnxruntime numpy             # for texts also tokenizers, for images also pillow
    python recommend.py ITEM ITEM --top-k 5

In Python, in the same folder: ``from recommend import Model``. ``adapter4rec export --onnx`` copies this file
next to the models that it writes; it does not need adapter4rec.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unicodedata import normalize

import numpy as np
import onnxruntime

Arrays = dict[str, np.ndarray]


class RankedItem(NamedTuple):
    """A recommended item. ``title`` is empty if there is none."""

    item: str
    title: str
    score: float


class Model:
    """A trained recommender.

    Args:
        folder: an ONNX export; by default that of this file.
        threads: number of threads; 0 for one on each core.

    Attributes:
        about: content of ``onnx.json``.
        names: names of the N items of the catalogue.
        titles: their titles; empty where there are none.
        vectors: their embeddings, float32 ``[N, d]``.
        users: the user encoder.
        items: the item encoder; None for an id tower, which has embeddings of its own items only.
    """

    def __init__(self, folder: Path | str = Path(__file__).parent, threads: int = 0) -> None:
        self.folder = Path(folder)
        self.about: dict[str, Any] = json.loads((self.folder / "onnx.json").read_text(encoding="utf-8"))
        lines = (self.folder / "items.tsv").read_bytes().decode("utf-8").split("\n")[:-1]
        self.names, self.titles = ([f"{line}\t".split("\t")[column] for line in lines] for column in (0, 1))
        self.numbers = {name: number for number, name in enumerate(self.names)}
        self.vectors: np.ndarray = np.load(self.folder / "item_vectors.npy")
        self.users = self._session("user_encoder.onnx", threads)
        content = self.about["content"]
        self.items = None if content is None else self._session("item_encoder.onnx", threads)
        if content is not None and content["kind"] == "text":
            self._tokenizers = [self._tokenizer(one["tokens"]) for one in content["attributes"]]

    def _tokenizer(self, tokens: int) -> Any:
        """The tokenizer of an attribute, which keeps so many tokens of a text."""
        import tokenizers

        tokenizer = tokenizers.Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        tokenizer.enable_truncation(tokens, direction=self.about["content"]["truncation"])
        return tokenizer

    def _session(self, name: str, threads: int) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        path = str(self.folder / name)
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def encode(self, contents: Sequence[Any]) -> np.ndarray:
        """Embeddings of items, float32 ``[n, d]``.

        Args:
            contents: n texts, or tuples of texts in the order of ``about["content"]["attributes"]``; image
                files, PIL images, or pixels (uint8 ``[size, size, 3]``, RGB); or vectors.
        """
        if self.items is None:
            raise ValueError("an id tower has embeddings of its own items only")
        embeddings: np.ndarray = self.items.run(None, self.item_inputs(contents))[0]
        return embeddings

    def item_inputs(self, contents: Sequence[Any]) -> Arrays:
        """The inputs of the item encoder, by name."""
        kind = self.about["content"]["kind"]
        if kind == "text":
            return self._tokens(contents)
        rows = [self._pixels(one) for one in contents] if kind == "image" else contents
        return {"pixels": np.stack(rows)} if kind == "image" else {"vectors": np.asarray(rows, np.float32)}

    def _tokens(self, contents: Sequence[Any]) -> Arrays:
        rows: list[list[int]] = []
        about = self.about["content"]
        for texts in contents:
            given = (texts,) if isinstance(texts, str) else texts
            if not isinstance(given, tuple | list) or len(given) != len(about["attributes"]):
                names = ", ".join(attribute["name"] for attribute in about["attributes"])
                raise ValueError(f"{texts!r}: expected a text, or a tuple of {names}")
            for text, attribute, tokenizer in zip(given, about["attributes"], self._tokenizers, strict=True):
                rows.append(tokenizer.encode(text[: attribute["characters"]].lower()).ids)
        shape = (len(rows), max(map(len, rows)))
        token_ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, ids in enumerate(rows):
            token_ids[row, : len(ids)], mask[row, : len(ids)] = ids, 1
        by_item = (len(contents), -1, shape[1])
        return {"input_ids": token_ids.reshape(by_item), "attention_mask": mask.reshape(by_item)}

    def _pixels(self, content: Any) -> np.ndarray:
        from PIL import Image, ImageOps

        if isinstance(content, np.ndarray):
            return content
        image = content if isinstance(content, Image.Image) else Image.open(content)
        image = ImageOps.exif_transpose(image)
        if image.has_transparency_data:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        image, about = image.convert("RGB"), self.about["content"]
        square, method = (about["size"],) * 2, Image.Resampling[about["interpolation"].upper()]
        if about["fit"] == "crop":
            return np.asarray(ImageOps.fit(image, square, method))
        if about["fit"] == "pad":
            return np.asarray(ImageOps.pad(image, square, method, color="white"))
        return np.asarray(image.resize(square, method))

    def user_vectors(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        """Next-item vectors, float32 ``[n, d]``, of n histories: embeddings ``[clicks, d]``, oldest first."""
        vectors: np.ndarray = self.users.run(None, self.user_inputs(histories))[0]
        return vectors

    def user_inputs(self, histories: Sequence[np.ndarray]) -> Arrays:
        """The inputs of the user encoder, by name: padded on the left."""
        length = max(map(len, histories))
        items = np.zeros((len(histories), length, self.vectors.shape[1]), np.float32)
        mask = np.zeros(items.shape[:2], bool)
        for row, history in enumerate(histories):
            items[row, length - len(history) :], mask[row, length - len(history) :] = history, True
        return {"items": items, "mask": mask}

    def recommend(self, history: Sequence[Any], top_k: int = 10) -> list[RankedItem]:
        """Rank the catalogue for a history.

        Args:
            history: names of items, or contents that are no strings (see :meth:`encode`), oldest first. The
                model reads the last ``about["max_seq_len"]``; none of them is recommended.
            top_k: number of items.

        Raises:
            ValueError: a name is not in the catalogue, a content is not of the model's kind, or ``top_k`` is
                less than 1.
        """
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}; expected at least 1")
        names = {place: normalize("NFC", one) for place, one in enumerate(history) if isinstance(one, str)}
        if unknown := [name for name in names.values() if name not in self.numbers]:
            raise ValueError(f"{unknown[0]!r} is not in items.tsv; pass the contents of other items")
        clicked = {place: self.numbers[name] for place, name in names.items()}
        vectors = np.zeros((len(history), self.vectors.shape[1]), np.float32)
        vectors[list(clicked)] = self.vectors[list(clicked.values())]
        if contents := [place for place in range(len(history)) if place not in clicked]:
            vectors[contents] = self.encode([history[place] for place in contents])
        scores = self.vectors @ self.user_vectors([vectors])[0]
        scores[list(clicked.values())] = -np.inf
        best = [item for item in np.argsort(-scores, kind="stable")[:top_k] if scores[item] > -np.inf]
        return [RankedItem(self.names[item], self.titles[item], float(scores[item])) for item in best]


def main() -> None:
    """Print recommendations for a history."""
    parser = argparse.ArgumentParser(description="Recommend items from an ONNX export.")
    parser.add_argument("history", metavar="ITEM", nargs="+", help="clicked items, oldest first")
    parser.add_argument("--top-k", type=int, default=10, help="number of items (%(default)s)")
    options = parser.parse_args()
    try:
        found = Model().recommend(options.history, options.top_k)
    except ValueError as error:
        parser.error(str(error))
    for rank, (item, title, score) in enumerate(found, 1):
        print(f"{rank:>3}. {score:8.3f}  {item}  {title}")


if __name__ == "__main__":
    main()
