"""Tokenising and its cache, groups of similar length, and fetching tokens in the order that was asked for."""

from __future__ import annotations

import resource
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from adapter4rec.data import text as text_module
from adapter4rec.data.packing import Packing
from adapter4rec.data.text import (
    Text,
    TextStore,
    Tokens,
    cached_arrays,
    pack_bounds,
    tokenise,
    truncate_body,
)
from adapter4rec.models.backbones import load_tokenizer
from adapter4rec.utils.errors import UserError

TEXTS = [
    'The Red House, "NA" & the river',
    "news",
    "",
    "blight in the garden city " * 9,
    "Ütopia 雪 !",
    "snow storm",
]


class Said(list):
    def __call__(self, line: str) -> None:
        self.append(line)


def rows_of(tokens: Tokens) -> list[list[int]]:
    return [part.tolist() for part in np.split(tokens.tokens, tokens.offsets[1:-1])]


@pytest.fixture(params=["tiny_tokenizer_folder", "tiny_roberta_folder"])
def any_tokenizer(request: pytest.FixtureRequest):
    return load_tokenizer(request.getfixturevalue(request.param))


@pytest.fixture
def tokenizer(tiny_tokenizer_folder: Path):
    return load_tokenizer(tiny_tokenizer_folder)


class TestTokenising:
    @pytest.mark.parametrize("most_tokens", [3, 8, 30])
    def test_lower_cased_cut_and_with_special_tokens(
        self, tmp_path: Path, any_tokenizer, most_tokens: int
    ) -> None:
        found = tokenise(TEXTS, any_tokenizer, most_tokens, tmp_path, Said())
        first, last = any_tokenizer.cls_token_id, any_tokenizer.sep_token_id
        expected = []
        for text in TEXTS:
            words = any_tokenizer.convert_tokens_to_ids(any_tokenizer.tokenize(text.lower()))
            expected.append([first, *words[: most_tokens - 2], last])
        assert rows_of(found) == expected
        assert max(map(len, expected)) == most_tokens
        assert found.offsets[0] == 0
        assert found.offsets[-1] == len(found.tokens)

    def test_case_makes_no_difference(self, tmp_path: Path, any_tokenizer) -> None:
        low = tokenise(["snow in the city"], any_tokenizer, 30, tmp_path, Said())
        high = tokenise(["SNOW in the City"], any_tokenizer, 30, tmp_path, Said())
        assert rows_of(low) == rows_of(high)

    def test_words_are_whole(self, tmp_path: Path, tokenizer) -> None:
        found = rows_of(tokenise(["The river's news"], tokenizer, 30, tmp_path, Said()))[0]
        assert tokenizer.convert_ids_to_tokens(found) == ["[CLS]", "the", "river", "'", "s", "news", "[SEP]"]

    def test_in_several_portions(self, tmp_path: Path, tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = rows_of(tokenise(TEXTS, tokenizer, 9, tmp_path / "whole", Said()))
        monkeypatch.setattr(text_module, "_TEXTS_PER_CALL", 4)
        assert rows_of(tokenise(TEXTS, tokenizer, 9, tmp_path / "parts", Said())) == whole

    def test_what_follows_many_characters_is_not_tokenised(
        self, tmp_path: Path, tokenizer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(text_module, "_CHARACTERS", 10)
        found = rows_of(tokenise(["the river's news"], tokenizer, 30, tmp_path, Said()))[0]
        assert tokenizer.convert_ids_to_tokens(found) == ["[CLS]", "the", "river", "'", "[SEP]"]

    def test_a_body_is_cut_first(self) -> None:
        assert truncate_body("ab" * 1_500) == "ab" * 1_000
        assert truncate_body("short") == "short"


class TestTokenCache:
    def test_used_again(self, tmp_path: Path, tokenizer) -> None:
        said = Said()
        first = tokenise(TEXTS, tokenizer, 8, tmp_path, said)
        again = tokenise(TEXTS, tokenizer, 8, tmp_path, said)
        assert said == ["tokenising 6 texts"]
        assert rows_of(again) == rows_of(first)
        assert again.identity == first.identity

    def test_what_was_tokenised_before_plays_no_part(
        self, tmp_path: Path, tiny_tokenizer_folder: Path
    ) -> None:
        """A tokenizer remembers the last cut; a cache made after another one must be found again."""
        tokenizer = load_tokenizer(tiny_tokenizer_folder)
        tokenise(TEXTS, tokenizer, 30, tmp_path, Said())
        after_another_cut = tokenise(TEXTS, tokenizer, 8, tmp_path, Said())
        said = Said()
        fresh = tokenise(TEXTS, load_tokenizer(tiny_tokenizer_folder), 8, tmp_path, said)
        assert fresh.identity == after_another_cut.identity
        assert said == []

    def test_other_texts_cuts_and_tokenizers_are_told_apart(
        self, tmp_path: Path, tokenizer, tiny_tokenizer_folder: Path, tiny_roberta_folder: Path
    ) -> None:
        other_folder = tmp_path / "other_words"
        other_folder.mkdir()
        for file in tiny_tokenizer_folder.iterdir():
            (other_folder / file.name).write_text(
                file.read_text(encoding="utf-8").replace("\nriver\n", "\nrover\n"), encoding="utf-8"
            )
        left = load_tokenizer(tiny_tokenizer_folder)
        left.truncation_side = "left"
        ways = [
            (TEXTS, tokenizer, 8),
            ([*TEXTS[:-1], "snow storm."], tokenizer, 8),
            ([TEXTS[1], TEXTS[0], *TEXTS[2:]], tokenizer, 8),
            ([*TEXTS[:-2], TEXTS[-2] + TEXTS[-1], ""], tokenizer, 8),
            (TEXTS, tokenizer, 9),
            (TEXTS, load_tokenizer(tiny_roberta_folder), 8),
            (TEXTS, load_tokenizer(other_folder), 8),
            (TEXTS, left, 8),
        ]
        said = Said()
        found = [tokenise(*way, tmp_path, said) for way in ways]
        assert len({tokens.identity for tokens in found}) == len(ways)
        assert len(said) == len(ways)


class TestCachedArrays:
    ARRAYS = {"numbers": np.arange(20), "words": np.ones((2, 3), np.float32)}  # noqa: RUF012

    @pytest.mark.parametrize(
        "damaged", [lambda data: data[:0], lambda data: data[:-8], lambda data: data[:-1] + b"!"]
    )
    def test_a_damaged_file_is_computed_again_with_a_warning(self, tmp_path: Path, damaged) -> None:
        computed, said = [], Said()
        path = tmp_path / "key.safetensors"

        def compute() -> dict[str, np.ndarray]:
            computed.append(1)
            return self.ARRAYS

        cached_arrays(path, compute, said)
        cached_arrays(path, compute, said)
        assert len(computed) == 1
        assert said == []
        path.write_bytes(damaged(path.read_bytes()))
        again = cached_arrays(path, compute, said)
        assert len(computed) == 2
        assert len(said) == 1
        assert f"{path}: damaged" in said[0]
        for arrays in (again, cached_arrays(path, compute, said)):
            assert set(arrays) == set(self.ARRAYS)
            for name, array in self.ARRAYS.items():
                np.testing.assert_array_equal(arrays[name], array)
        assert len(computed) == 2

    def test_nothing_is_left_of_a_computation_that_fails(self, tmp_path: Path) -> None:
        def fail() -> dict[str, np.ndarray]:
            raise RuntimeError

        with pytest.raises(RuntimeError):
            cached_arrays(tmp_path / "key.safetensors", fail)
        assert list(tmp_path.iterdir()) == []

    def test_a_full_disk_is_told(self, tmp_path: Path) -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (16, before[1]))
            with pytest.raises(UserError, match=r"key\.safetensors.*cannot be written"):
                cached_arrays(tmp_path / "key.safetensors", lambda: self.ARRAYS)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert list(tmp_path.iterdir()) == []


class TestStretches:
    @pytest.mark.parametrize("most_tokens", [1, 40, 128, 4096])
    def test_properties(self, most_tokens: int) -> None:
        chance = np.random.default_rng(most_tokens)
        for size in (1, 2, 7, 60, 300):
            lengths = np.sort(chance.integers(2, 51, size))
            stretches = pack_bounds(lengths, most_tokens)
            assert stretches[0][0] == 0
            assert stretches[-1][1] == size
            assert all(before[1] == after[0] for before, after in pairwise(stretches))
            for first, last in stretches:
                assert last - first == 1 or lengths[first:last].sum() <= most_tokens
                if last < size:  # as long as that allows
                    assert lengths[first : last + 1].sum() > most_tokens

    def test_of_nothing(self) -> None:
        assert pack_bounds(np.array([], np.int64), 10) == []


class TestPacking:
    LENGTHS = np.array([2, 2, 3, 5, 5, 5])

    def test_where_texts_lie(self) -> None:
        packing = Packing.of(self.LENGTHS)
        assert packing.spans == ((2, 2), (1, 3), (3, 5))
        assert packing.firsts.tolist() == [0, 2, 4, 7, 12, 17]
        assert packing.places.tolist() == [place for length in self.LENGTHS for place in range(length)]
        assert (len(packing), packing.longest) == (6, 5)
        assert packing.real(6).sum(1).tolist() == self.LENGTHS.tolist()
        assert not packing.real(6)[:, 5].any()

    def test_further_tokens_stand_behind_each_first(self) -> None:
        packing = Packing.of(self.LENGTHS)
        longer, sources = packing.lengthened(2)
        expected = Packing.of(self.LENGTHS + 2)
        assert longer.spans == expected.spans
        assert torch.equal(longer.places, expected.places)
        assert torch.equal(longer.firsts, expected.firsts)
        tokens = [f"{text}.{place}" for text, length in enumerate(self.LENGTHS) for place in range(length)]
        rows = [
            [f"{text}.0", "a", "b", *(f"{text}.{place}" for place in range(1, length))]
            for text, length in enumerate(self.LENGTHS)
        ]
        assert [[*tokens, "a", "b"][source] for source in sources] == sum(rows, start=[])  # noqa: RUF017


def random_tokens(chance: np.random.Generator, items: int, longest: int) -> Tokens:
    lengths = chance.integers(2, longest + 1, items)
    # From 1000 on, so that no token looks like padding.
    tokens = chance.integers(1000, 2000, lengths.sum()).astype(np.int32)
    return Tokens(tokens, np.concatenate([[0], np.cumsum(lengths)]), f"tokens {longest}")


def texts_of(content: Text) -> list[list[int]]:
    """The texts that the packs hold, in the order that ``content.order`` restores."""
    rows = []
    for pack in content.packs:
        lengths = [length for count, length in pack.packing.spans for _ in range(count)]
        rows += [row.tolist() for row in pack.values.split(lengths)]
    return [rows[row] for row in content.order.tolist()]


class TestFetch:
    @pytest.mark.parametrize("attributes", [1, 2, 3])
    @pytest.mark.parametrize("tokens_at_once", [16, 300, 100_000])
    def test_against_naive_rows(self, attributes: int, tokens_at_once: int) -> None:
        chance = np.random.default_rng(attributes)
        tokens = [random_tokens(chance, 40, longest) for longest in (30, 50, 9)[:attributes]]
        store = TextStore(tokens, tokens_at_once)
        for size in (1, 5, 40):
            items = chance.permutation(40)[:size] + 1
            content = store.fetch(items)
            expected = [rows_of(one)[item - 1] for item in items for one in tokens]
            assert texts_of(content) == expected
            assert len(content) == size
            assert sum(len(pack) for pack in content.packs) == size * attributes
            for pack in content.packs:
                assert len(pack) == 1 or len(pack.values) <= tokens_at_once
                assert pack.values.dtype == torch.int64

    def test_costs_and_identity(self) -> None:
        chance = np.random.default_rng(0)
        title, abstract = random_tokens(chance, 6, 9), random_tokens(chance, 6, 12)
        store = TextStore([title, abstract], 100)
        expected = [len(a) + len(b) for a, b in zip(rows_of(title), rows_of(abstract), strict=True)]
        assert store.costs(np.arange(1, 7)).tolist() == expected
        assert store.identity != TextStore([title], 100).identity
        assert store.identity != TextStore([abstract, title], 100).identity

    def test_moves_as_a_whole(self) -> None:
        content = TextStore([random_tokens(np.random.default_rng(0), 8, 9)], 20).fetch(np.arange(1, 9))
        moved = content.to(torch.device("meta"))
        assert len(content.packs) > 1
        assert moved.order.is_meta
        for pack, there in zip(content.packs, moved.packs, strict=True):
            assert there.values.is_meta
            assert there.packing.places.is_meta
            assert there.packing.firsts.is_meta
            assert there.packing.spans == pack.packing.spans
        assert len(moved) == len(content)
