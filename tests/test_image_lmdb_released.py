"""LMDBs that the released scripts wrote are converted, and nothing that they say is run."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path

import lmdb
import numpy as np
import pytest
from image_shop import SIZE, Shop, by_hand, encoded, picture, pixels, small_batches
from PIL import Image

from adapter4rec.data.images.building import build
from adapter4rec.data.images.database import ImageDatabase
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


def record_with(module: str = "__main__", **attributes: object) -> bytes:
    """A record as the released scripts pickle it, from the module that they ran in."""
    cls = type("LMDB_Image", (), {"__module__": module})
    record = cls()
    vars(record).update(attributes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module, sys.modules.get(module, types.ModuleType(module)))
        patch.setattr(sys.modules[module], "LMDB_Image", cls, raising=False)
        return pickle.dumps(record)


def record_of(image: np.ndarray, number: object = 0, module: str = "__main__") -> bytes:
    height, width, channels = image.shape
    return record_with(module, channels=channels, size=(height, width), image=image.tobytes(), id=number)


def released_lmdb(path: Path, records: Mapping[bytes, bytes], *, folder: bool, lists: bool = True) -> Path:
    with lmdb.open(str(path), subdir=folder, map_size=1 << 22) as env, env.begin(write=True) as write:
        for key, value in records.items():
            write.put(key, value)
        if lists:
            write.put(b"__keys__", pickle.dumps(list(records)))
            write.put(b"__len__", pickle.dumps(len(records)))
    return path


class Evil:
    def __init__(self, function: Callable, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


class TestReleased:
    IMAGES = [np.asarray(picture(seed, width=20 + seed, height=30)) for seed in range(4)]  # noqa: RUF012

    @pytest.mark.parametrize("folder", [True, False])
    @pytest.mark.parametrize("module", ["__main__", "released_build"])
    def test_hm(self, empty_shop: Shop, folder: bool, module: str) -> None:
        keys = {"v101": b"101", "v0102": b"102", "v0103": b"0103", "v104": b"v104"}
        records = {
            key: record_of(image, np.int64(number) if number % 2 else number, module)
            for number, (key, image) in enumerate(zip(keys.values(), self.IMAGES, strict=True))
        }
        path = released_lmdb(empty_shop.folder / "old", records, folder=folder)
        empty_shop.names = list(keys)
        settings = empty_shop.settings(convert=path, images=None)
        assert build(settings).images == 4
        database = ImageDatabase(settings.into)
        for name, image in zip(keys, self.IMAGES, strict=True):
            expected = Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
            np.testing.assert_array_equal(pixels(database, name.encode()), np.asarray(expected))

    def test_amazon_without_lists_in_several_threads(self, empty_shop: Shop) -> None:
        records = {b"B%d" % number: record_of(self.IMAGES[0], number) for number in range(20)}
        path = released_lmdb(empty_shop.folder / "old", records, folder=True, lists=False)
        empty_shop.names = [key.decode() for key in records]
        settings = empty_shop.settings(convert=path, images=None, workers=4)
        assert build(settings).images == 20

    def test_grey_and_alpha(self, empty_shop: Shop) -> None:
        grey, alpha = np.asarray(picture(1, "L"))[..., None], np.asarray(picture(2, "RGBA"))
        records = {b"g": record_of(grey), b"a": record_of(alpha)}
        path = released_lmdb(empty_shop.folder / "old", records, folder=True)
        empty_shop.names = ["g", "a"]
        build(empty_shop.settings(convert=path))
        database = ImageDatabase(empty_shop.folder / "shop.lmdb")
        np.testing.assert_array_equal(
            pixels(database, b"g"), by_hand(encoded(Image.fromarray(grey[..., 0]), "PNG"))
        )

    @pytest.mark.parametrize("hidden", [False, True])
    @pytest.mark.parametrize("trap", ["system", "eval", "popen", "getattr", "type"])
    def test_no_code_is_run(self, empty_shop: Shop, trap: str, hidden: bool) -> None:
        there = empty_shop.folder / "it_ran"
        evil = {
            "system": Evil(os.system, f"touch {there}"),
            "eval": Evil(eval, f"open({str(there)!r}, 'w')"),
            "popen": Evil(subprocess.check_call, ["touch", str(there)]),
            "getattr": Evil(getattr, {}, "keys"),
            "type": Evil(type, "X", (), {}),
        }[trap]
        raw = record_of(self.IMAGES[0], evil) if hidden else pickle.dumps(evil)
        path = released_lmdb(empty_shop.folder / "old", {b"a": raw}, folder=True)
        empty_shop.names = ["a"]
        with pytest.raises(UserError, match=r"record 'a': unsafe pickle: .*Nothing was executed"):
            build(empty_shop.settings(convert=path, missing="skip"))
        assert not there.exists()
        pickle.loads(pickle.dumps(evil))
        assert there.exists() == (trap in ("system", "eval", "popen"))  # the traps do work

    def test_nothing_is_left_behind_by_a_record(self, empty_shop: Shop) -> None:
        """A pickle that changes the class itself does not reach the next record."""
        changing = b"c__main__\nLMDB_Image\n(N}S'__setstate__'\ncnumpy\ndtype\nstb."
        records = {b"a": changing, b"b": record_of(self.IMAGES[0])}
        path = released_lmdb(empty_shop.folder / "old", records, folder=True)
        empty_shop.names = ["a", "b"]
        assert build(empty_shop.settings(convert=path, missing="skip")).left_out == (b"a",)

    def test_damaged_records_are_broken_images(self, empty_shop: Shop) -> None:
        good = record_of(self.IMAGES[0])
        records = {
            b"good": good,
            b"half": good[: len(good) // 2],
            b"noise": b"\x80\x04noise",
            b"list": pickle.dumps([1, 2]),
            b"short": record_with(channels=3, size=(4, 4), image=b"x" * 47),
            b"long": record_with(channels=3, size=(4, 4), image=b"x" * 49),
            b"two": record_with(channels=2, size=(1, 1), image=b"xx"),
            b"negative": record_with(channels=3, size=(-1, -1), image=b"xxx"),
            b"lacking": record_with(channels=3, size=(1, 1)),
            b"text": record_with(channels=3, size=(1, 1), image="xxx"),
            b"floats": record_with(channels=3, size=(1.0, 1.0), image=b"xxx"),
        }
        path = released_lmdb(empty_shop.folder / "old", records, folder=True)
        empty_shop.names = [key.decode() for key in records] + ["__len__", "not_there"]
        description = build(empty_shop.settings(convert=path, missing="skip"))
        assert description.images == 1
        assert set(empty_shop.left_out()) == set(empty_shop.names) - {"good"}

    def test_keys_of_other_items(self, empty_shop: Shop) -> None:
        path = released_lmdb(empty_shop.folder / "old", {b"77": record_of(self.IMAGES[0])}, folder=True)
        empty_shop.names = ["v78"]
        with pytest.raises(UserError, match=r"no image of any item; keys: '77'.*'v78'"):
            build(empty_shop.settings(convert=path))

    def test_reading_one_directly_tells_how_to_convert_it(self, tmp_path: Path) -> None:
        records = {b"77": record_of(self.IMAGES[0])}
        for folder in (True, False):
            path = released_lmdb(tmp_path / f"old{folder}", records, folder=folder)
            with pytest.raises(UserError, match=r"released scripts with\n.* --convert"):
                ImageDatabase(path).require_size(SIZE)

    def test_what_cannot_be_converted(self, shop: Shop) -> None:
        build(shop.settings())
        ours = shop.folder / "shop.lmdb"
        with pytest.raises(UserError, match="no conversion needed"):
            build(shop.settings(convert=ours, into=shop.folder / "new.lmdb"))
        with pytest.raises(UserError, match="other options: --convert"):
            build(shop.settings(convert=ours))
        with pytest.raises(UserError, match="no such LMDB"):
            build(shop.settings(convert=shop.folder / "none", into=shop.folder / "new.lmdb"))
        with pytest.raises(UserError, match="--images is required"):
            build(shop.settings(images=None))
