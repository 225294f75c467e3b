"""A folder of own images: all kinds of files, and updates of its LMDB."""

from __future__ import annotations

import io
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from image_shop import SIZE, Shop, contents, encoded, exif, picture, pixels, png, small_batches
from matplotlib import get_data_path
from PIL import Image, ImageOps, features

from adapter4rec.data.images import updating
from adapter4rec.data.images.building import build
from adapter4rec.data.images.database import ImageDatabase
from adapter4rec.data.images.decoding import BrokenImageError, Resizing
from adapter4rec.data.images.updating import unfinished_folder
from adapter4rec.data.interactions import read_interactions, read_items
from adapter4rec.data.settings import DECODINGS
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


def animated() -> bytes:
    file = io.BytesIO()
    picture(8).save(file, "GIF", save_all=True, append_images=[picture(9), picture(10)])
    return file.getvalue()


def macos(name: str) -> str:
    return unicodedata.normalize("NFD", name)


GOOD = {
    "cmyk": ("cmyk.jpg", encoded(picture(1, "CMYK"), "JPEG")),
    "rotated": ("rotated.jpg", encoded(picture(2), "JPEG", exif=exif(6))),
    "deep16": ("deep16.png", png(np.arange(400, dtype=np.uint16).reshape(20, 20) * 160)),
    "animated": ("animated.gif", animated()),
    "clear": ("clear.png", encoded(picture(4, "RGBA"), "PNG")),
    "large": ("large.jpg", encoded(Image.linear_gradient("L").resize((6000, 4000)), "JPEG")),
    "crème": (macos("crème.jpg"), encoded(picture(5), "JPEG")),
    "capital": ("capital.JPG", encoded(picture(6), "JPEG")),
    "bare": ("bare", encoded(picture(7), "PNG")),
    "jfif": ("jfif.jfif", encoded(picture(11), "JPEG")),
    "below": ("sub/folder/below.webp", encoded(picture(12), "WEBP", lossless=True)),
    "lying": ("lying.png", encoded(picture(13), "JPEG")),
    "with.dot": ("with.dot.jpg", encoded(picture(14), "JPEG")),
    "red_shoe": ("red  shoe.jpg", encoded(picture(16), "JPEG")),  # as Dataset.prepare writes the item
}
if features.check("avif"):
    GOOD["modern"] = ("modern.avif", encoded(picture(15), "AVIF", quality=90))
PLACEHOLDER = encoded(Image.new("RGB", (50, 40), (240, 240, 240)), "PNG")
BROKEN = {
    "half": ("half.jpg", encoded(picture(21, width=300, height=200), "JPEG")[:3000], "runcated"),
    "empty": ("empty.jpg", b"", "empty file"),
    "page": ("page.jpg", b"<!DOCTYPE html><html>404</html>", "web page"),
    "drawing": ("drawing.png", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    "phone": ("phone.jpg", b"\0\0\0\x18ftypheic" + bytes(40), "HEIC"),
    "twice": ("twice.jpg", encoded(picture(17), "JPEG"), "several images"),
    "again": ("again.jpg", encoded(picture(18), "JPEG"), "several images"),
    "absent": (".absent.jpg", GOOD["rotated"][1], "no image"),
    "Thumbs": ("Thumbs.db", b"\xd0\xcf\x11\xe0 of Windows", "no image"),
    "desktop": ("desktop.ini", b"[.ShellClassInfo]", "no image"),
}
HIDDEN = ("._cmyk.jpg", "__MACOSX/cmyk.jpg", "@eaDir/rotated.jpg", ".thumbnails/large.jpg", ".DS_Store")
"""Images that macOS, file servers and viewers put beside those of people; each would be a second one."""


@pytest.fixture
def dirty(empty_shop: Shop) -> Shop:
    """A folder as people have them."""
    for name, (file, data) in GOOD.items():
        empty_shop.add(name, data, file)
    for name, (file, data, _) in BROKEN.items():
        empty_shop.add(name, data, file)
    for file in HIDDEN:
        (empty_shop.images / file).parent.mkdir(exist_ok=True)
        (empty_shop.images / file).write_bytes(encoded(picture(20), "JPEG"))
    for number in range(40):  # "no image available"
        empty_shop.add(f"placeholder{number}", PLACEHOLDER)
    for file in ("sub/twice.jpg", "again.png"):
        (empty_shop.images / file).write_bytes(encoded(picture(19), "PNG"))
    (empty_shop.images / "capital.png").write_bytes(GOOD["capital"][1])  # a copy of the same image
    (empty_shop.images / "cmyk.json").write_bytes(b"{}")  # belongs to the item, but is no image
    return empty_shop


def pillows(data: bytes) -> np.ndarray:
    """The pixels that Pillow gives, in another way than the project's."""
    image = Image.open(io.BytesIO(data))
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = ImageOps.exif_transpose(image)
    if image.mode == "RGBA":
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        image = white
    return np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def test_every_item_of_a_dirty_folder_is_right_or_named_with_its_reason_in_one_pass(dirty: Shop) -> None:
    with pytest.raises(UserError, match=f"{len(BROKEN)} of {len(dirty.names)} items have no usable image"):
        build(dirty.settings())
    reasons = dirty.left_out()
    assert reasons.keys() == BROKEN.keys()
    for name, (_, _, reason) in BROKEN.items():
        assert reason in reasons[name]
    build(dirty.settings(missing="skip"))
    database = ImageDatabase(dirty.folder / "shop.lmdb")
    for name, (_, data) in GOOD.items():
        difference = pixels(database, name.encode()).astype(int) - pillows(data)
        assert abs(difference).mean() < 1, name
    assert {name.decode() for name in database.names()} == set(dirty.names) - BROKEN.keys()
    assert (pixels(database, b"placeholder39") == 240).all()
    without_file = {name for name, (_, _, reason) in BROKEN.items() if reason == "no image"}
    assert database.faults().keys() == {name.encode() for name in BROKEN.keys() - without_file}


def test_names_of_the_item_list_may_be_decomposed_too(empty_shop: Shop) -> None:
    empty_shop.add("é", encoded(picture(1), "PNG"), "é.png")
    empty_shop.names = [macos("é")]
    build(empty_shop.settings())
    assert ImageDatabase(empty_shop.folder / "shop.lmdb").names() == {"é".encode()}


def test_names_of_histories_may_be_decomposed_too(tmp_path: Path) -> None:
    (tmp_path / "items.tsv").write_text("".join(f"é{number}\n" for number in range(6)), "utf-8")
    history = " ".join(macos(f"é{number}") for number in range(6))
    (tmp_path / "users.tsv").write_text(f"u\t{history}\n", "utf-8")
    found = read_interactions(
        tmp_path / "users.tsv", read_items(tmp_path / "items.tsv", ()), min_seq_len=5, max_seq_len=9
    )
    assert found.n_items == 6


def test_the_command_of_a_hint_is_whole(shop: Shop) -> None:
    build(shop.settings(fit="crop"))
    with pytest.raises(UserError) as caught:
        ImageDatabase(shop.folder / "shop.lmdb").require_size(SIZE + 1, shop.folder / "items.tsv")
    for words in (f"--images {shop.images}", f"--items {shop.folder}", f"--size {SIZE + 1}", "--fit crop"):
        assert words in str(caught.value)


def test_a_name_with_a_space_is_refused_where_it_is_read(empty_shop: Shop) -> None:
    empty_shop.add("red shoe", encoded(picture(1), "PNG"))
    with pytest.raises(UserError, match=r"items.tsv:1: the item name 'red shoe' contains a space"):
        build(empty_shop.settings())


def test_a_column_of_paths(empty_shop: Shop) -> None:
    empty_shop.add("a", encoded(picture(1), "PNG"), "red/Front view.png")
    empty_shop.add("b")
    settings = empty_shop.settings(missing="skip", image_column=3)
    settings.items.write_text("a\ttitle\tred/Front view.png\nb\ttitle\tnone.jpg\n")
    assert build(settings).left_out == (b"b",)


class TestUpdates:
    def decoded_files(self, monkeypatch: pytest.MonkeyPatch) -> list[object]:
        seen: list[object] = []
        whole = Resizing.pixels

        def counted(self: Resizing, source: object) -> np.ndarray:
            seen.append(source)
            return whole(self, source)

        monkeypatch.setattr(Resizing, "pixels", counted)
        return seen

    def test_only_new_and_changed_files_are_decoded(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        build(shop.settings())
        seen = self.decoded_files(monkeypatch)
        changed, touched, removed = (shop.images / f"{name}.jpg" for name in shop.names[:3])
        changed.write_bytes(encoded(picture(77), "JPEG"))
        os.utime(touched, (1, 1))
        removed.unlink()
        shop.add("new", encoded(picture(78), "JPEG"))
        build(shop.settings(missing="skip"))
        assert len(seen) == 2
        assert "2 decoded, 1 removed" in capsys.readouterr().out
        before = contents(shop.folder / "shop.lmdb")
        again = shop.settings(missing="skip", into=shop.folder / "again.lmdb")
        build(again)
        assert contents(again.into) == before
        seen.clear()
        build(shop.settings(missing="skip"))
        assert not seen
        assert "up to date" in capsys.readouterr().out

    def test_a_repaired_image_is_noticed_and_a_spoilt_one_too(self, shop: Shop) -> None:
        shop.add("bad", b"hello")
        assert build(shop.settings(missing="skip")).left_out == (b"bad",)
        (shop.images / "bad.jpg").write_bytes(encoded(picture(1), "JPEG"))
        assert build(shop.settings(missing="skip")).left_out == ()
        assert not (shop.folder / "shop.missing.csv").exists()
        (shop.images / "bad.jpg").write_bytes(b"hello again")
        assert build(shop.settings(missing="skip")).left_out == (b"bad",)
        with pytest.raises(UserError, match="no image of item"):
            pixels(ImageDatabase(shop.folder / "shop.lmdb"), b"bad")

    def test_an_image_that_could_not_be_read_once_is_tried_again(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(path: Path) -> bytes:
            if path.stem == shop.names[0]:
                raise BrokenImageError("Input/output error")
            return path.read_bytes()

        def undecodable(*_: object) -> None:
            raise BrokenImageError("this Pillow does not decode it")

        with monkeypatch.context() as patch:
            patch.setattr(Resizing, "pixels", undecodable)
            with pytest.raises(UserError, match="none of 60 items has a usable image"):
                build(shop.settings(missing="skip"))
        assert build(shop.settings(missing="skip")).left_out == ()
        os.utime(shop.images / f"{shop.names[0]}.jpg", (1, 1))
        with monkeypatch.context() as patch:
            patch.setattr("adapter4rec.data.images.updating.image_bytes", fails)
            assert build(shop.settings(missing="skip")).left_out == (shop.names[0].encode(),)
        assert build(shop.settings(missing="skip")).left_out == ()

    def test_items_that_leave_the_list_leave_the_lmdb(self, shop: Shop) -> None:
        build(shop.settings())
        gone = shop.names.pop()
        assert build(shop.settings()).images == 59
        assert gone.encode() not in contents(shop.folder / "shop.lmdb")
        shop.add("new")  # without a file
        assert build(shop.settings(missing="skip")).left_out == (b"new",)

    def test_an_update_under_error_leaves_the_old_one(self, shop: Shop) -> None:
        build(shop.settings())
        before = contents(shop.folder / "shop.lmdb")
        shop.add("bad", b"hello")
        with pytest.raises(UserError, match="1 of 61 items"):
            build(shop.settings())
        assert contents(shop.folder / "shop.lmdb") == before
        (shop.images / "bad.jpg").write_bytes(encoded(picture(1), "JPEG"))
        assert build(shop.settings()).images == 61
        assert not unfinished_folder(shop.folder / "shop.lmdb").exists()

    def test_an_interrupted_update_is_resumed(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        build(shop.settings())
        for number in range(20):
            shop.add(f"new{number}", encoded(picture(100 + number), "JPEG"))
        write, calls = updating.write, []

        def failing(environment, values, sources):
            write(environment, values, sources)
            calls.append(len(values))
            if len(calls) == 2:
                raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(updating, "write", failing)
            with pytest.raises(KeyboardInterrupt):
                build(shop.settings())
        seen = self.decoded_files(monkeypatch)
        assert build(shop.settings()).images == 80
        assert len(seen) == 20 - sum(calls)

    def test_a_process_that_reads_notices_a_change(self, shop: Shop) -> None:
        build(shop.settings())
        database = ImageDatabase(shop.folder / "shop.lmdb")
        first = pixels(database, b"B001")
        (shop.images / "B001.jpg").write_bytes(encoded(picture(77), "JPEG"))
        build(shop.settings())
        with pytest.raises(UserError, match="another build has changed the images"):
            pixels(database, b"B001")
        assert (pixels(ImageDatabase(shop.folder / "shop.lmdb"), b"B001") != first).any()


class TestResizing:
    WIDE = Image.merge("RGB", [Image.new("L", (40, 10), value) for value in (200, 100, 0)])

    def test_fits(self) -> None:
        image = self.WIDE.copy()
        image.paste("black", (0, 0, 10, 10))  # a quarter on the left
        stretched, cropped, padded = (Resizing(20, fit).pixels(image) for fit in ("stretch", "crop", "pad"))
        assert (stretched[10, :3] == 0).all()
        assert (cropped == (200, 100, 0)).all()
        assert (padded[:7] == 255).all()
        assert (padded[10, :3] == 0).all()

    def test_interpolations_differ_as_pillows_do(self) -> None:
        image = picture(3)
        for name in ("bilinear", "bicubic"):
            expected = image.resize((SIZE, SIZE), Image.Resampling[name.upper()])
            np.testing.assert_array_equal(Resizing(SIZE, interpolation=name).pixels(image), expected)

    @pytest.mark.parametrize("sides", [(640, 480), (800, 1000), (1500, 1500), (97, 1234)])
    def test_decoding_at_a_reduced_size_stays_within_a_grey_level(self, sides: tuple[int, int]) -> None:
        noise = np.random.default_rng(0).integers(0, 60, (sides[1], sides[0], 3), dtype=np.uint8)
        image = Image.fromarray(noise + np.asarray(picture(1, width=sides[0], height=sides[1])) // 2)
        data = encoded(image, "JPEG", quality=90)
        reduced, full = (Resizing(64, decoding=way).pixels(data).astype(int) for way in ("reduced", "full"))
        assert abs(reduced - full).mean() < 1

    def test_ways_of_decoding_a_photograph(self) -> None:
        photograph = Path(get_data_path(), "sample_data", "grace_hopper.jpg")  # 512 x 600
        size = 512 * 224 // 800  # as of 800 pixels at 224
        whole = Image.open(photograph).resize((size, size), Image.Resampling.BILINEAR)
        found = {way: Resizing(size, decoding=way).pixels(photograph).astype(int) for way in DECODINGS}
        differences = {way: abs(pixels - np.asarray(whole)).mean() for way, pixels in found.items()}
        assert differences["full"] == 0
        assert 0 < differences["reduced"] < 1
        assert 1 < differences["fast"] < 3
