"""Reading the LMDB of item images: in several processes, and what is wrong with it."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import lmdb
import numpy as np
import pytest
from image_shop import SIZE, Shop, pixels, small_batches

from adapter4rec.data.images import updating
from adapter4rec.data.images.building import build
from adapter4rec.data.images.database import ImageDatabase, opened
from adapter4rec.data.images.description import DESCRIPTION_KEY
from adapter4rec.utils.errors import UserError


@pytest.fixture
def empty_shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def shop(empty_shop: Shop) -> Shop:
    return empty_shop.filled()


@pytest.fixture(autouse=True)
def several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    small_batches(monkeypatch)


class TestReading:
    @pytest.fixture
    def path(self, shop: Shop) -> Path:
        build(shop.settings())
        return shop.folder / "shop.lmdb"

    def test_another_size(self, path: Path) -> None:
        with pytest.raises(UserError, match=r"(?s)16 x 16, but the image encoder expects 20 x 20.*--size 20"):
            ImageDatabase(path).require_size(20)

    @pytest.mark.parametrize("name", [b"B999", b"b001"])
    def test_a_name_that_is_not_there(self, path: Path, name: bytes) -> None:
        with pytest.raises(UserError, match="no image of item"):
            pixels(ImageDatabase(path), name)

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no such LMDB"):
            ImageDatabase(tmp_path / "no.lmdb").require_size(SIZE)
        with pytest.raises(UserError, match=r"data.mdb: no such LMDB"):
            ImageDatabase(tmp_path).require_size(SIZE)

    @pytest.mark.parametrize("data", [b"", b"text" * 5000, b"\0" * 100])
    @pytest.mark.parametrize("name", ["data.mdb", "x.lmdb"])
    def test_no_lmdb(self, tmp_path: Path, data: bytes, name: str) -> None:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match="not an LMDB"):
            ImageDatabase(tmp_path if name == "data.mdb" else tmp_path / name).require_size(SIZE)

    def test_cut_off_at_any_page(self, path: Path) -> None:
        file = path / "data.mdb"
        for length in range(file.stat().st_size - 1, 0, -4096):
            os.truncate(file, length)
            with pytest.raises(UserError, match=r"truncated|not an LMDB"):
                pixels(ImageDatabase(path), b"B001")

    def test_a_flipped_byte_names_the_item(self, path: Path) -> None:
        expected = pixels(ImageDatabase(path), b"B001")
        file = path / "data.mdb"
        data = bytearray(file.read_bytes())
        data[data.index(expected.tobytes()) + 100] ^= 4
        file.write_bytes(data)
        database = ImageDatabase(path)
        with pytest.raises(UserError, match=r"'B001'.*checksum mismatch"):
            pixels(database, b"B001")
        pixels(database, b"B002")

    def test_a_value_under_another_name(self, path: Path) -> None:
        with lmdb.open(str(path)) as env, env.begin(write=True) as transaction:
            transaction.put(b"B001", transaction.get(b"B002"))
        with pytest.raises(UserError, match=r"'B001'.*checksum mismatch"):
            pixels(ImageDatabase(path), b"B001")

    @pytest.mark.parametrize("raw", [b"{", b"[]", b"{}", b'{"format": 9}', b'{"format": 3}'])
    def test_a_damaged_description(self, path: Path, raw: bytes) -> None:
        with lmdb.open(str(path)) as env, env.begin(write=True) as transaction:
            transaction.put(DESCRIPTION_KEY, raw)
        with pytest.raises(UserError, match="cannot read the description"):
            ImageDatabase(path).require_size(SIZE)

    def test_another_lmdb(self, tmp_path: Path) -> None:
        with lmdb.open(str(tmp_path)) as env, env.begin(write=True) as transaction:
            transaction.put(b"a", b"b")
        with pytest.raises(UserError, match=r"(?s)not built by .*--convert"):
            ImageDatabase(tmp_path).require_size(SIZE)

    def test_opened_twice_by_any_path_and_sent_elsewhere(self, path: Path) -> None:
        first, second = ImageDatabase(path), ImageDatabase(path / "data.mdb")
        expected = pixels(first, b"B001")
        np.testing.assert_array_equal(pixels(second, b"B001"), expected)
        del first
        np.testing.assert_array_equal(pixels(second, b"B002"), pixels(second, b"B002"))
        sent = pickle.loads(pickle.dumps(second))
        np.testing.assert_array_equal(pixels(sent, b"B001"), expected)

    def test_a_forked_process_opens_it_for_itself(self, path: Path) -> None:
        database = ImageDatabase(path)
        expected = pixels(database, b"B001")
        inherited = opened(path)
        child = os.fork()
        if not child:
            try:
                fine = opened(path) is not inherited and np.array_equal(pixels(database, b"B001"), expected)
            finally:
                os._exit(0 if fine else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert opened(path) is inherited
        np.testing.assert_array_equal(pixels(database, b"B001"), expected)

    def test_forked_workers_of_a_loader(self, path: Path) -> None:
        from torch.utils.data import DataLoader

        database = ImageDatabase(path)
        names = sorted(database.names())  # opened here, before the fork
        expected = [pixels(database, name) for name in names]
        loader = DataLoader(
            Images(database, names),
            batch_size=None,
            num_workers=2,
            multiprocessing_context="fork",
            prefetch_factor=4,
        )
        for found, image, name in zip(loader, expected, names, strict=True):
            np.testing.assert_array_equal(found, image)
            np.testing.assert_array_equal(pixels(database, name), image)

    def test_while_another_is_built(self, path: Path, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        database = ImageDatabase(path)
        expected = pixels(database, b"B001")
        write = updating.write

        def reading(environment: lmdb.Environment, values: dict[bytes, bytes], *more: object) -> None:
            write(environment, values, *more)
            np.testing.assert_array_equal(pixels(database, b"B001"), expected)

        monkeypatch.setattr(updating, "write", reading)
        assert build(shop.settings(into=shop.folder / "other.lmdb")).images == 60


class Images:
    def __init__(self, database: ImageDatabase, names: list[bytes]) -> None:
        self.database, self.names = database, names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, row: int) -> np.ndarray:
        return pixels(self.database, self.names[row])
