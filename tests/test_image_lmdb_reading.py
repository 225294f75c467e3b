"""Reading the LMDB of item images: in several processes, and what is wrong with it."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import lmdb
import numpy as np
import pytest
from image_shop import SIZE, Shop, small_portions

from adapter4rec.data.images.building import build
from adapter4rec.data.images.database import ImageDatabase
from adapter4rec.data.images.description import DESCRIPTION_KEY
from adapter4rec.data.images.opening import opened
from adapter4rec.data.images.writing import DatabaseWriter
from adapter4rec.utils.errors import UserError


@pytest.fixture
def empty_shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def shop(empty_shop: Shop) -> Shop:
    return empty_shop.filled()


@pytest.fixture(autouse=True)
def several_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    small_portions(monkeypatch)


class TestReading:
    @pytest.fixture
    def path(self, shop: Shop) -> Path:
        build(shop.settings())
        return shop.folder / "shop.lmdb"

    def test_another_size(self, path: Path) -> None:
        with pytest.raises(UserError, match=r"16 x 16, but the image encoder expects 20 x 20.*--size 20"):
            ImageDatabase(path).pixels(b"B001", 20)
        with pytest.raises(UserError, match="20 x 20"):
            ImageDatabase(path).require_size(20)

    @pytest.mark.parametrize("name", [b"B999", b"b001", DESCRIPTION_KEY])
    def test_a_name_that_is_not_there(self, path: Path, name: bytes) -> None:
        with pytest.raises(UserError, match="no image of item"):
            ImageDatabase(path).pixels(name, SIZE)

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no such LMDB; build it with"):
            ImageDatabase(tmp_path / "no.lmdb").names()
        with pytest.raises(UserError, match=r"not an LMDB: no data.mdb"):
            ImageDatabase(tmp_path).names()

    @pytest.mark.parametrize("data", [b"", b"text" * 5000, b"\0" * 100])
    @pytest.mark.parametrize("name", ["data.mdb", "x.lmdb"])
    def test_no_lmdb(self, tmp_path: Path, data: bytes, name: str) -> None:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match="not an LMDB"):
            ImageDatabase(tmp_path if name == "data.mdb" else tmp_path / name).names()

    def test_cut_off_at_any_page(self, path: Path) -> None:
        file = path / "data.mdb"
        for length in range(file.stat().st_size - 1, 0, -4096):
            os.truncate(file, length)
            with pytest.raises(UserError, match=r"truncated|not an LMDB"):
                ImageDatabase(path).pixels(b"B001", SIZE)

    def test_a_flipped_byte_names_the_item(self, path: Path) -> None:
        expected = ImageDatabase(path).pixels(b"B001", SIZE)
        file = path / "data.mdb"
        data = bytearray(file.read_bytes())
        data[data.index(expected.tobytes()) + 100] ^= 4
        file.write_bytes(data)
        database = ImageDatabase(path)
        with pytest.raises(UserError, match=r"'B001'.*checksum mismatch"):
            database.pixels(b"B001", SIZE)
        database.pixels(b"B002", SIZE)

    def test_a_value_under_another_name(self, path: Path) -> None:
        with lmdb.open(str(path)) as env, env.begin(write=True) as transaction:
            transaction.put(b"B001", transaction.get(b"B002"))
        with pytest.raises(UserError, match=r"'B001'.*checksum mismatch"):
            ImageDatabase(path).pixels(b"B001", SIZE)

    @pytest.mark.parametrize("raw", [b"{", b"[]", b"{}", b'{"format": 9, "form": 1, "size": 1, "state": 1}'])
    def test_a_damaged_description(self, path: Path, raw: bytes) -> None:
        with lmdb.open(str(path)) as env, env.begin(write=True) as transaction:
            transaction.put(DESCRIPTION_KEY, raw)
        with pytest.raises(UserError, match="cannot read the description"):
            ImageDatabase(path).names()

    def test_another_lmdb(self, tmp_path: Path) -> None:
        with lmdb.open(str(tmp_path)) as env, env.begin(write=True) as transaction:
            transaction.put(b"a", b"b")
        with pytest.raises(UserError, match="not built by"):
            ImageDatabase(tmp_path).names()

    def test_opened_twice_by_any_path_and_sent_elsewhere(self, path: Path) -> None:
        first, second = ImageDatabase(path), ImageDatabase(path / "data.mdb")
        expected = first.pixels(b"B001", SIZE)
        np.testing.assert_array_equal(second.pixels(b"B001", SIZE), expected)
        del first
        np.testing.assert_array_equal(second.pixels(b"B002", SIZE), second.pixels(b"B002", SIZE))
        sent = pickle.loads(pickle.dumps(second))
        np.testing.assert_array_equal(sent.pixels(b"B001", SIZE), expected)

    def test_the_array_fits_the_names(self, path: Path) -> None:
        for shape in ((1, SIZE, SIZE, 3), (2, SIZE, SIZE, 4), (2, SIZE, SIZE + 1, 3)):
            with pytest.raises(ValueError, match="2 images"):
                ImageDatabase(path).read_into([b"B001", b"B002"], np.empty(shape, np.uint8))

    def test_a_forked_process_opens_it_for_itself(self, path: Path) -> None:
        database = ImageDatabase(path)
        expected = database.pixels(b"B001", SIZE)
        inherited = opened(path)
        child = os.fork()
        if not child:
            try:
                fine = inherited.closed and np.array_equal(database.pixels(b"B001", SIZE), expected)
            finally:
                os._exit(0 if fine else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert not inherited.closed
        np.testing.assert_array_equal(database.pixels(b"B001", SIZE), expected)

    def test_forked_workers_of_a_loader(self, path: Path) -> None:
        from torch.utils.data import DataLoader

        database = ImageDatabase(path)
        names = sorted(database.names())  # opened here, before the fork
        expected = [database.pixels(name, SIZE) for name in names]
        loader = DataLoader(
            Images(database, names),
            batch_size=None,
            num_workers=2,
            multiprocessing_context="fork",
            prefetch_factor=4,
        )
        for found, image, name in zip(loader, expected, names, strict=True):
            np.testing.assert_array_equal(found, image)
            np.testing.assert_array_equal(database.pixels(name, SIZE), image)

    def test_while_another_is_built(self, path: Path, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        database = ImageDatabase(path)
        expected = database.pixels(b"B001", SIZE)
        put = DatabaseWriter.put

        def reading(writer: DatabaseWriter, name: bytes, value: bytes) -> None:
            put(writer, name, value)
            np.testing.assert_array_equal(database.pixels(b"B001", SIZE), expected)

        monkeypatch.setattr(DatabaseWriter, "put", reading)
        assert build(shop.settings(into=shop.folder / "other.lmdb")).images == 60


class Images:
    def __init__(self, database: ImageDatabase, names: list[bytes]) -> None:
        self.database, self.names = database, names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.database.pixels(self.names[row], SIZE)
