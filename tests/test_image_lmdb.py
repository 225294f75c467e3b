"""Building the LMDB of item images from a folder of files, and the page that does it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import lmdb
import numpy as np
import pytest
from conftest import REPOSITORY
from image_shop import SIZE, Shop, by_hand, contents, encoded, exif, picture, pixels, small_batches

from adapter4rec.data.images import updating
from adapter4rec.data.images.building import (
    ImageLmdbSettings,
    build,
    build_from_page,
)
from adapter4rec.data.images.database import ImageDatabase
from adapter4rec.data.images.description import DESCRIPTION_KEY
from adapter4rec.data.images.updating import unfinished_folder
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


class TestBuilding:
    def test_what_is_read_is_what_pil_gives(self, empty_shop: Shop) -> None:
        data = {
            "a": encoded(picture(1), "JPEG"),
            "b": encoded(picture(2, "L"), "PNG"),
            "c": encoded(picture(3), "JPEG", exif=exif(6)),
            "ü 1".replace(" ", ""): encoded(picture(4), "WEBP"),
            "e": encoded(picture(5, width=SIZE, height=SIZE), "BMP"),
        }
        files = {"a": "a.JPEG", "b": "deep/er/b.Png", "c": "c.jpg", "ü1": "ü1.webp", "e": "e.bmp"}
        for name, image in data.items():
            empty_shop.add(name, image, files[name])
        description = build(empty_shop.settings())
        database = ImageDatabase(empty_shop.folder / "shop.lmdb")
        names = [name.encode() for name in data]
        for name, image in data.items():
            np.testing.assert_array_equal(pixels(database, name.encode()), by_hand(image))
        found = database.read(names[::-1])
        np.testing.assert_array_equal(found[::-1], [by_hand(image) for image in data.values()])
        assert database.names() == set(names)
        assert database.description == description
        assert (description.images, description.left_out) == (5, ())

    def test_the_number_of_workers_changes_nothing(self, shop: Shop) -> None:
        shop.add("broken", b"no image", "broken.jpg")
        found = []
        for workers in (1, 8):
            into = shop.folder / f"{workers}.lmdb"
            build(shop.settings(into=into, workers=workers, missing="skip"))
            found.append(contents(into))
        assert found[0] == found[1]
        assert len(found[0]) == 61
        assert DESCRIPTION_KEY in found[0]

    def test_content_hash(self, shop: Shop) -> None:
        first = build(shop.settings())
        assert build(shop.settings(into=shop.folder / "again.lmdb")) == first
        (shop.images / "B007.jpg").write_bytes(encoded(picture(99), "JPEG"))
        assert build(shop.settings(into=shop.folder / "other.lmdb")).content != first.content

    def test_a_build_imports_no_torch(self) -> None:
        code = "import sys, adapter4rec.data.images.building, build_lmdb_hm; print('torch' in sys.modules)"
        ran = subprocess.run(
            [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
        assert ran.stdout.strip() == "False"

    def test_what_is_said_at_the_end(self, empty_shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
        for name, image in {
            "a": encoded(picture(1, "L"), "JPEG"),
            "b": encoded(picture(1, "RGBA"), "PNG"),
            "c": encoded(picture(1), "JPEG", exif=exif(3)),
            "d": b"",
        }.items():
            empty_shop.add(name, image)
        empty_shop.add("e")
        build(empty_shop.settings(missing="skip"))
        said = capsys.readouterr().out
        assert "3 images" in said
        assert "left out: 2 items" in said


class TestFindingFiles:
    def test_hm_files_are_numbers(self, empty_shop: Shop) -> None:
        files = {
            "v108775015": "010/0108775015.jpg",
            "v7": "v7.png",
            "v8": "sub/v0008.JPG",
            "v0": "000.jpg",
            "w9": "w9.jpg",
        }
        data = {name: encoded(picture(seed), "PNG") for seed, name in enumerate(files)}
        for name, file in files.items():
            empty_shop.add(name, data[name], file)
        build(empty_shop.settings(numbered_files=True))
        database = ImageDatabase(empty_shop.folder / "shop.lmdb")
        for name in files:
            np.testing.assert_array_equal(pixels(database, name.encode()), by_hand(data[name]))

    def test_numbers_mean_nothing_elsewhere(self, empty_shop: Shop) -> None:
        empty_shop.add("v1", encoded(picture(1), "JPEG"), "1.jpg")
        with pytest.raises(UserError, match="none of 1 files matches an item"):
            build(empty_shop.settings())

    @pytest.mark.parametrize("files", [("a.jpg", "a.png"), ("a.jpg", "deep/a.jpg")])
    def test_two_files_for_one_item(self, shop: Shop, files: tuple[str, str]) -> None:
        shop.add("a", encoded(picture(1), "JPEG"), files[0])
        shop.add("a", encoded(picture(2), "JPEG"), files[1])
        shop.names.pop()
        for name in ("b", "equal"):  # all in one list; equal files are one image
            shop.add(name, encoded(picture(3), "JPEG"), f"{name}.jpg")
            (shop.images / f"{name}.png").write_bytes(encoded(picture(3 + (name == "b")), "JPEG"))
        assert build(shop.settings(missing="skip")).left_out == (b"a", b"b")
        assert shop.left_out() == dict.fromkeys("ab", "several images; keep one")
        listed = (shop.folder / "shop.missing.csv").read_text()
        assert all(file in listed for file in files)
        (shop.images / files[1]).unlink()
        assert build(shop.settings(missing="skip")).left_out == (b"b",)
        (shop.images / files[1]).write_bytes(encoded(picture(2), "JPEG"))
        assert build(shop.settings(missing="skip")).left_out == (b"a", b"b")
        with pytest.raises(UserError, match="no image of item"):
            pixels(ImageDatabase(shop.folder / "shop.lmdb"), b"a")

    def test_two_files_for_one_number(self, empty_shop: Shop) -> None:
        empty_shop.add("v12", encoded(picture(1), "JPEG"), "12.jpg")
        (empty_shop.images / "012.jpg").write_bytes(encoded(picture(2), "PNG"))
        with pytest.raises(UserError, match=r"'v12': several images"):
            build(empty_shop.settings(numbered_files=True))

    def test_files_that_no_item_wants_may_share_a_stem(self, shop: Shop) -> None:
        for file in ("z.jpg", "z.png"):
            (shop.images / file).write_bytes(b"")
        assert build(shop.settings()).images == 60

    @pytest.mark.parametrize("others", [(), ("notes.txt", ".a.jpg", "__MACOSX/a.jpg")])
    def test_a_folder_without_images(self, empty_shop: Shop, others: tuple[str, ...]) -> None:
        empty_shop.add("a")
        for name in others:
            path = empty_shop.images / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(encoded(picture(1), "JPEG"))
        with pytest.raises(UserError, match=f"none of {len(others[:1])} files"):
            build(empty_shop.settings())
        assert not (empty_shop.folder / "shop.lmdb").exists()

    def test_no_folder(self, shop: Shop) -> None:
        with pytest.raises(UserError, match="no such folder"):
            build(shop.settings(images=shop.folder / "elsewhere"))

    def test_no_file_fits(self, shop: Shop) -> None:
        shop.names = ["x1", "x2"]
        with pytest.raises(UserError, match="none of 60 files") as caught:
            build(shop.settings())
        assert "B000.jpg" in str(caught.value)
        assert "'x1'" in str(caught.value)

    def test_links_to_folders_are_followed_once(self, empty_shop: Shop) -> None:
        elsewhere = empty_shop.folder / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "b.jpg").write_bytes(encoded(picture(2), "JPEG"))
        (empty_shop.images / "linked").symlink_to(elsewhere)
        (empty_shop.images / "again").symlink_to(elsewhere)
        (empty_shop.images / "cycle").symlink_to(empty_shop.images)
        empty_shop.add("a", encoded(picture(1), "JPEG"))
        empty_shop.add("b")
        assert build(empty_shop.settings()).images == 2

    @pytest.mark.parametrize("name", ["x" * 512, "a\0b"])
    def test_names_that_lmdb_cannot_store(self, shop: Shop, name: str) -> None:
        shop.names.append(name)
        with pytest.raises(UserError, match=r"items.tsv:61: .*item name .* (cannot store|control)"):
            build(shop.settings(missing="skip"))
        assert not unfinished_folder(shop.folder / "shop.lmdb").exists()

    def test_the_longest_name(self, shop: Shop) -> None:
        shop.add("é" * 255 + "x", encoded(picture(1), "JPEG"), "a.jpg")
        shop.names[-1] = "a"
        assert build(shop.settings()).images == 61


class TestMissingAndBroken:
    BROKEN = {"empty": b"", "text": b"hello", "half": encoded(picture(1), "JPEG")[:-80]}  # noqa: RUF012

    def test_missing_and_broken_ones_are_listed_together(self, shop: Shop) -> None:
        shop.names[3:3] = ["n1", "n2"]
        shop.add("text", b"hello")
        with pytest.raises(
            UserError, match="3 of 63 items have no usable image, the first is 'n1': no image"
        ) as caught:
            build(shop.settings())
        assert str(shop.folder / "shop.missing.csv") in str(caught.value)
        assert set(shop.left_out()) == {"n1", "n2", "text"}
        assert not (shop.folder / "shop.lmdb").exists()

    def test_the_error_ends_with_the_whole_command_that_skips(self, shop: Shop) -> None:
        shop.add("text", b"hello")
        with pytest.raises(UserError) as caught:
            build(shop.settings(fit="pad"))
        command = shlex.split(str(caught.value).splitlines()[-1])
        command[:2] = [sys.executable, str(REPOSITORY / "build_lmdb_hm.py")]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        assert ImageDatabase(shop.folder / "shop.lmdb").description.options["fit"] == "pad"

    def test_broken_ones_end_it_at_the_end_and_are_tried_again(self, shop: Shop) -> None:
        for name, data in self.BROKEN.items():
            shop.add(name, data)
        shop.names = [*shop.names[-3:], *shop.names[:-3]]
        with pytest.raises(UserError, match=r"3 of 63 items have no usable image, .*'empty': empty file"):
            build(shop.settings())
        assert set(shop.left_out()) == set(self.BROKEN)
        assert "not an image" in shop.left_out()["text"]
        with pytest.raises(UserError, match="not complete"):
            ImageDatabase(shop.folder / "shop.lmdb").require_size(SIZE)
        for name in self.BROKEN:
            (shop.images / f"{name}.jpg").write_bytes(encoded(picture(1), "JPEG"))
        assert build(shop.settings()).images == 63
        assert not (shop.folder / "shop.missing.csv").exists()

    def test_skipped(self, shop: Shop) -> None:
        for name, data in self.BROKEN.items():
            shop.add(name, data)
        shop.names.insert(0, "n1")
        description = build(shop.settings(missing="skip"))
        assert description.images == 60
        assert description.left_out == (b"n1", b"empty", b"text", b"half")
        assert list(shop.left_out()) == ["n1", "empty", "text", "half"]
        database = ImageDatabase(shop.folder / "shop.lmdb")
        assert len(database.names()) == 60
        items = shop.folder / "items.tsv"
        assert database.without_image([b"n1", b"B001", b"text"], items) == {b"n1", b"text"}
        with pytest.raises(UserError, match=r"another item list than .*1 items are missing.*'stranger'"):
            database.without_image([b"n1", b"B001", b"stranger"], items)
        assert build(shop.settings(missing="skip")) == description
        with pytest.raises(
            UserError, match=r"4 of 64 items have no usable image, the first is 'n1': no image"
        ):
            build(shop.settings())
        assert list(shop.left_out()) == ["n1", "empty", "text", "half"]

    def test_none_is_left(self, empty_shop: Shop) -> None:
        empty_shop.add("a", b"")
        with pytest.raises(UserError, match="none of 1 items has a usable image"):
            build(empty_shop.settings(missing="skip"))
        with pytest.raises(UserError, match="not complete"):
            ImageDatabase(empty_shop.folder / "shop.lmdb").require_size(SIZE)


class TestAlreadyThere:
    def test_a_complete_one_is_left_alone(self, shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
        first = build(shop.settings())
        before = (shop.folder / "shop.lmdb" / "data.mdb").stat()
        capsys.readouterr()
        assert build(shop.settings()) == first
        assert "up to date" in capsys.readouterr().out
        after = (shop.folder / "shop.lmdb" / "data.mdb").stat()
        assert (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)

    @pytest.mark.parametrize("state", ["complete", "building"])
    def test_other_plans_are_refused(self, shop: Shop, state: str) -> None:
        if state == "building":
            shop.add("broken", b"")
            with pytest.raises(UserError):
                build(shop.settings())
        else:
            build(shop.settings())
        into = shop.folder / "shop.lmdb"
        folder = into if state == "complete" else unfinished_folder(into)
        before = contents(folder)
        elsewhere = shop.folder / "elsewhere"
        shutil.copytree(shop.images, elsewhere)
        for option, value in {
            "size": 20,
            "numbered_files": True,
            "images": elsewhere,
        }.items():
            with pytest.raises(UserError, match=f"other options: .*--{option}") as caught:
                build(shop.settings(**{option: value}))
            assert (value.name if option == "images" else str(value)) in str(caught.value)
        assert contents(folder) == before

    def test_numbering_counts_as_another_build(self, empty_shop: Shop) -> None:
        empty_shop.add("v12", encoded(picture(1), "JPEG"), "0012.jpg")
        empty_shop.add("a", encoded(picture(2), "JPEG"))
        assert build(empty_shop.settings(numbered_files=True)).images == 2
        with pytest.raises(UserError, match=r"--numbered_files True \(now False\)"):
            build(empty_shop.settings(missing="skip"))

    def test_a_data_set_may_be_moved(self, shop: Shop) -> None:
        first = build(shop.settings())
        moved = shop.folder.with_name("moved")
        shop.folder.rename(moved)
        shop.folder, shop.images = moved, moved / "images"
        assert build(shop.settings()) == first

    def test_a_database_of_another_format_version(self, shop: Shop) -> None:
        build(shop.settings())
        with lmdb.open(str(shop.folder / "shop.lmdb")) as env, env.begin(write=True) as transaction:
            values = json.loads(transaction.get(DESCRIPTION_KEY))
            transaction.put(DESCRIPTION_KEY, json.dumps(values | {"format": 2}).encode())
        with pytest.raises(UserError, match="format version 2"):
            build(shop.settings())
        with pytest.raises(UserError, match="format version 2"):
            ImageDatabase(shop.folder / "shop.lmdb").require_size(SIZE)

    def test_other_things_there_are_not_touched(self, shop: Shop) -> None:
        with pytest.raises(UserError, match="no such LMDB"):
            build(shop.settings(into=shop.images))
        assert len([*shop.images.iterdir()]) == 60
        file = shop.folder / "file.lmdb"
        file.write_bytes(b"precious")
        with pytest.raises(UserError, match="not an LMDB"):
            build(shop.settings(into=file))
        assert file.read_bytes() == b"precious"
        with lmdb.open(str(shop.folder / "foreign")) as env, env.begin(write=True) as transaction:
            transaction.put(b"a", b"b")
        with pytest.raises(UserError, match="not built by"):
            build(shop.settings(into=shop.folder / "foreign"))
        assert contents(shop.folder / "foreign") == {b"a": b"b"}

    def test_two_builds_at_once(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = shop.settings()
        write = updating.write

        def again(environment: lmdb.Environment, values: dict[bytes, bytes], *more: object) -> None:
            write(environment, values, *more)
            with pytest.raises(UserError, match="in use by another build"):
                build(settings)

        monkeypatch.setattr(updating, "write", again)
        assert build(settings).images == 60
        assert {path.name for path in settings.into.iterdir()} == {"data.mdb"}

    @pytest.mark.parametrize("length", [100, 4096])
    def test_a_half_built_one_that_is_damaged(self, shop: Shop, length: int) -> None:
        shop.add("broken", b"")
        with pytest.raises(UserError):
            build(shop.settings())
        file = unfinished_folder(shop.folder / "shop.lmdb") / "data.mdb"
        file.write_bytes(b"x" * length)
        with pytest.raises(UserError, match="remove a damaged LMDB"):
            build(shop.settings())

    def test_a_half_built_one_that_is_cut_short(self, shop: Shop) -> None:
        shop.add("broken", b"")
        with pytest.raises(UserError):
            build(shop.settings())
        file = unfinished_folder(shop.folder / "shop.lmdb") / "data.mdb"
        file.write_bytes(file.read_bytes()[:-4096])
        with pytest.raises(UserError, match=r"truncated file: .*; remove the LMDB"):
            build(shop.settings())


class TestPage:
    PRESETS = {  # noqa: RUF012
        "hm": {"items": "a.tsv", "images": "images", "into": "a.lmdb", "numbered_files": True},
        "amazon": {"items": "b.tsv", "images": "images", "into": "b.lmdb", "size": 7},
    }

    @pytest.fixture
    def built(self, monkeypatch: pytest.MonkeyPatch) -> list[ImageLmdbSettings]:
        found: list[ImageLmdbSettings] = []
        monkeypatch.setattr("adapter4rec.data.images.building.build", found.append)
        return found

    def test_presets_and_what_overrides_them(
        self, built: list[ImageLmdbSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        build_from_page(self.PRESETS, ["--missing", "skip"])
        build_from_page(self.PRESETS, ["--preset", "amazon", "--items", "mine.tsv", "--workers", "3"])
        build_from_page(self.PRESETS, ["--preset", "hm", "--images=mine"])
        hm, amazon, hm_elsewhere = built
        assert (hm.preset, hm.items, hm.size) == ("hm", REPOSITORY / "a.tsv", 224)
        assert (hm.numbered_files, hm_elsewhere.numbered_files, amazon.numbered_files) == (True, True, False)
        assert (hm_elsewhere.items, hm_elsewhere.images) == (hm.items, tmp_path / "mine")
        assert (amazon.preset, amazon.into, amazon.size) == ("amazon", REPOSITORY / "b.lmdb", 7)
        assert (amazon.items, amazon.workers) == (tmp_path / "mine.tsv", 3)
        assert hm.workers == len(os.sched_getaffinity(0))

    @pytest.mark.parametrize("place", ["images", "convert"])
    def test_other_data_has_no_preset(
        self,
        built: list[ImageLmdbSettings],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        place: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        build_from_page(self.PRESETS, ["--items", "mine.tsv", f"--{place}", "mine", "--into", "mine.lmdb"])
        (settings,) = built
        assert not settings.numbered_files
        assert (settings.items, getattr(settings, place)) == (tmp_path / "mine.tsv", tmp_path / "mine")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--preset", "amazn"], "did you mean"),
            (["--size", "0"], "at least 1"),
            (["--siz", "9"], "did you mean 'size'"),
            (["--missing", "ignore"], "choose from: error, skip"),
            (["--workers", "0"], "at least 1"),
            (["--items", "mine.tsv"], "--into is required"),
            (["--images", "mine"], "is required"),
            (["--convert", "old.lmdb"], "is required"),
            (["--convert", "old.lmdb", "--items", "mine.tsv"], "--into is required"),
        ],
    )
    def test_bad_options(self, built: list[ImageLmdbSettings], arguments: list[str], message: str) -> None:
        with pytest.raises(UserError, match=message):
            build_from_page(self.PRESETS, arguments)
        assert not built

    def test_the_script_takes_no_numbered_file_for_an_item_of_other_data(self, empty_shop: Shop) -> None:
        empty_shop.add("v12", encoded(picture(1), "PNG"), "0012.png")
        empty_shop.add("a", encoded(picture(2), "PNG"), "a.png")
        empty_shop.settings()  # writes the list
        command = [sys.executable, str(REPOSITORY / "build_lmdb_hm.py"), "--size", "16"]
        places = ["--items", "items.tsv", "--images", "images", "--into", "shop.lmdb"]
        ran = subprocess.run(
            [*command, *places], cwd=empty_shop.folder, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 2
        assert "'v12'" in ran.stderr
        assert not (empty_shop.folder / "shop.lmdb").exists()

    def test_the_script(self, shop: Shop) -> None:
        settings = shop.settings()
        command = [sys.executable, str(REPOSITORY / "build_lmdb_hm.py"), "--preset", "amazon", "--size", "16"]
        places = ["--items", "items.tsv", "--images", "images", "--into", "shop.lmdb", "--workers", "2"]
        ran = subprocess.run(
            [*command, *places], cwd=shop.folder, capture_output=True, text=True, check=False
        )
        assert (ran.returncode, ran.stderr) == (0, "")
        assert "60 images" in ran.stdout
        assert ImageDatabase(settings.into).description.images == 60
        again = subprocess.run(
            [*command, *places, "--numbered_files"],
            cwd=shop.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert again.returncode == 2
        assert again.stderr.startswith("error: ")
        assert "Traceback" not in again.stderr
