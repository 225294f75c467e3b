"""The generated image sample: its files, what its pictures show, what decides the clicks, and its folder."""

from __future__ import annotations

import colorsys
import dataclasses
import hashlib
import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adapter4rec.datasets.sample import SampleSettings, images, make_image_sample, make_sample
from adapter4rec.datasets.sample import folder as sample_folder
from adapter4rec.datasets.sample.behaviour import Dice, SampleCatalogue, SampleDomain, user_lines
from adapter4rec.datasets.sample.command import main
from adapter4rec.datasets.sample.folder import LISTS
from adapter4rec.datasets.sample.images import (
    COLOURS,
    GREY,
    PATTERNS,
    SILHOUETTES,
    SOURCE,
    TARGET,
    TINY,
    draw,
    pattern_mask,
)
from adapter4rec.utils.errors import UserError

SMALL = SampleSettings(users=40, target_users=30, items=40, clicks=8, seed=3)
DOMAINS = (SOURCE, TARGET)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    into = tmp_path_factory.mktemp("images") / "made"
    assert make_image_sample(into, SMALL)
    return into


@pytest.fixture
def quick(monkeypatch) -> None:
    """Pictures of one colour, for tests of the folder."""

    def draw_one_colour(
        _cell: int, _shapes: object, _size: object, dice: Dice, cutout: bool = False
    ) -> Image.Image:
        return Image.new("RGBA" if cutout else "RGB", (2, 2), (int(dice.below(256, 1)[0]), 0, 0))

    monkeypatch.setattr(images, "draw", draw_one_colour)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def names_in(folder: Path, domain: SampleDomain) -> list[str]:
    return (folder / domain.name / "items.tsv").read_text(encoding="utf-8").splitlines()


def pictures(folder: Path, domain: SampleDomain) -> dict[str, Path]:
    return {file.stem: file for file in (folder / domain.name / "images").iterdir()}


def colour_of(domain: SampleDomain, settings: SampleSettings) -> dict[str, int]:
    """The colour of each item by name, in the order of ``items.tsv``."""
    catalogue = SampleCatalogue(domain, settings, digits=4)
    colours = (catalogue.listed_cells // len(PATTERNS)).tolist()
    return dict(zip(catalogue.listed, colours, strict=True))


# The form of the files


def test_same_settings_give_the_same_bytes_and_another_seed_others(tmp_path, folder):
    for name, seed in (("same", 3), ("other", 4)):
        make_image_sample(tmp_path / name, dataclasses.replace(SMALL, seed=seed))
    one, same, other = (contents(path) for path in (folder, tmp_path / "same", tmp_path / "other"))
    assert one == same
    drawn = [name for name in one if name in other and "images" in name]
    assert len(drawn) > 60
    assert not [name for name in (*drawn, "source/users.tsv", "target/users.tsv") if one[name] == other[name]]


def test_lists_and_colours_do_not_drift():
    """A changed generator needs a new version, and this hash of it; Pillow plays no part in it."""
    digest = hashlib.sha256()
    for domain in DOMAINS:
        catalogue = SampleCatalogue(domain, SMALL, digits=4)
        for name, cell in zip(catalogue.listed, catalogue.listed_cells.tolist(), strict=True):
            digest.update(f"{name} {cell}\n".encode())
        lines = user_lines(catalogue, dataclasses.replace(SMALL, target_users=40))
        digest.update("".join(f"{line}\n" for line in lines).encode())
    assert (images.IMAGE_SAMPLE.version, digest.hexdigest()[:16]) == (2, "0b57a4fdd47378cd")


def test_lists_are_well_formed_and_of_the_asked_size(folder):
    patterns = {
        "source/items.tsv": (40, r"s\d{4}"),
        "target/items.tsv": (40, r"t\d{4}"),
        "source/users.tsv": (40, r"u\d+\ts\d{4}( s\d{4}){4,}"),
        "target/users.tsv": (30, r"v\d+\tt\d{4}( t\d{4}){4,}"),
    }
    assert set(patterns) == set(LISTS)
    for name, (count, pattern) in patterns.items():
        content = (folder / name).read_bytes().decode("utf-8")
        lines = content.removesuffix("\n").split("\n")
        assert "\r" not in content and len(lines) == count
        assert [line for line in lines if not re.fullmatch(pattern, line)] == []
        assert len({line.split("\t")[0] for line in lines}) == count


def test_every_item_has_one_picture_and_the_domains_share_none(folder):
    hashes = []
    for domain in DOMAINS:
        files = list((folder / domain.name / "images").iterdir())
        assert sorted(file.stem for file in files) == sorted(names_in(folder, domain))
        hashes += [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    assert len(set(hashes)) == len(hashes) == 80
    assert not set(names_in(folder, SOURCE)) & set(names_in(folder, TARGET))
    assert not set(SILHOUETTES["source"]) & set(SILHOUETTES["target"])


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.name)
def test_pictures_come_in_all_promised_forms(folder, domain):
    colours, seen = colour_of(domain, SMALL), Counter()
    for name, file in pictures(folder, domain).items():
        with Image.open(file) as picture:
            picture.load()
        tiny = picture.size == TINY
        assert tiny or (min(picture.size) >= 224 and max(picture.size) <= 400)
        assert file.suffix == {"JPEG": ".jpg", "PNG": ".png"}[picture.format]
        if picture.mode == "RGBA":
            assert picture.getchannel("A").getextrema() == (0, 255)
        if picture.mode == "L":
            assert colours[name] == GREY
        seen[picture.format, picture.mode, tiny] += 1
    assert seen["PNG", "RGBA", False] == seen["JPEG", "RGB", True] == 1
    assert seen["JPEG", "L", False] >= 1
    assert sum(seen.values()) == 40 and len(seen) == 4


# What the pictures show


def changes_along(line: np.ndarray) -> int:
    """How often a line of a mask goes from one colour to the other or back."""
    return np.count_nonzero(np.diff(line > 100))


def test_each_pattern_is_seen_in_its_own_way():
    across, down = {}, {}
    for number, pattern in enumerate(PATTERNS):
        mask = np.asarray(pattern_mask(number, pitch=60, slant=0, phase=0))
        across[pattern] = max(changes_along(line) for line in mask)
        down[pattern] = max(changes_along(line) for line in mask.T)
    assert across["plain"] == down["plain"] == 0
    assert across["striped"] == 0 and down["striped"] >= 12
    assert min(across["checked"], down["checked"], across["dotted"], down["dotted"]) >= 12
    checked, dotted = (np.asarray(pattern_mask(number, pitch=60, slant=0, phase=0)) for number in (2, 3))
    assert len(np.unique(checked)) == 3, "where stripes cross, they are darker"
    assert not dotted[0].any(), "between rows of dots"


def test_the_direction_and_the_place_of_a_pattern_vary():
    level, slanted, shifted = (
        np.asarray(pattern_mask(1, 60, slant, phase)) for slant, phase in ((0, 0), (10, 0), (0, 25))
    )
    assert changes_along(level[40]) == 0 and changes_along(slanted[40]) == 2
    assert (level[15:] == shifted[:-15]).all()


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.name)
def test_plain_items_have_the_colour_of_their_topic(domain):
    for colour, (middle, _) in enumerate(COLOURS):
        for seed in range(3):
            cell = colour * len(PATTERNS)
            picture = draw(cell, SILHOUETTES[domain.name], (224, 224), Dice(seed))
            pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
            spread = np.ptp(pixels.astype(int), axis=1)
            if colour == GREY:
                assert np.percentile(spread, 95) < 40
                continue
            strong = pixels[spread > 0.75 * spread.max()].mean(axis=0)
            hue = 360 * colorsys.rgb_to_hls(*strong / 255)[0]
            assert abs((hue - middle + 180) % 360 - 180) <= 6


def test_no_two_colours_overlap():
    hues = sorted(hue % 360 for hue, _ in COLOURS[:GREY])
    assert min(after - before for before, after in pairwise([*hues, hues[0] + 360])) > 2 * 4 + 10


def test_items_of_a_cell_are_different_pictures_also_to_a_small_encoder():
    shapes = SILHOUETTES["source"][:1]
    drawn = [draw(0, shapes, (224, 224), Dice(seed)).convert("RGB") for seed in range(12)]
    small = [np.asarray(picture.resize((16, 16)), dtype=float) for picture in drawn]
    distances = [np.abs(a - b).mean() for place, a in enumerate(small) for b in small[:place]]
    assert min(distances) > 2


@pytest.mark.parametrize("name", ["source", "target"])
def test_products_lie_within_the_picture(name):
    for shape in SILHOUETTES[name]:
        for seed in range(4):
            picture = draw(0, (shape,), (224, 224), Dice(seed), cutout=True)
            left, top, right, bottom = picture.getchannel("A").getbbox()
            assert 0 < left < right < 224 and 0 < top < bottom < 224, shape


# What decides the clicks


@pytest.fixture(scope="module")
def crowds() -> dict[str, list[list[tuple[int, int]]]]:
    """The colours and patterns that the users of a larger sample click, in order, by domain."""
    settings = SampleSettings(users=600, target_users=600, items=400, clicks=13, seed=1)
    seen = {}
    for domain in DOMAINS:
        catalogue = SampleCatalogue(domain, settings, digits=4)
        looks = [divmod(cell, len(PATTERNS)) for cell in catalogue.listed_cells.tolist()]
        look_of = dict(zip(catalogue.listed, looks, strict=True))
        histories = [line.split("\t")[1].split(" ") for line in user_lines(catalogue, settings)]
        seen[domain.name] = [[look_of[name] for name in history] for history in histories]
    return seen


def follow_share(crowd: list[list[tuple[int, int]]], rule: tuple[int, ...], topics: range) -> float:
    """Of the moves from one of ``topics`` to another colour, the share that the rule names."""
    moves = [
        (last, colour)
        for user in crowd
        for (last, _), (colour, _) in pairwise(user)
        if last != colour and last in topics
    ]
    return np.mean([rule[before] == after for before, after in moves])


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.name)
def test_the_next_colour_follows_the_rule_far_above_chance(crowds, domain):
    assert follow_share(crowds[domain.name], domain.next_topic, range(8)) > 0.6  # chance is 1 in 7


def test_the_sources_rule_holds_in_the_target_after_every_other_colour(crowds):
    assert follow_share(crowds["target"], SOURCE.next_topic, range(0, 8, 2)) > 0.6
    assert follow_share(crowds["target"], SOURCE.next_topic, range(1, 8, 2)) < 0.2


def test_users_hold_to_a_pattern_in_the_target_more_than_in_the_source(crowds):
    share = {
        name: np.mean([max(Counter(pattern for _, pattern in user).values()) / len(user) for user in crowd])
        for name, crowd in crowds.items()
    }
    assert 0.6 < share["source"] < 0.75
    assert share["target"] > 0.8


def test_rules_are_permutations_and_every_cell_has_items():
    for domain in DOMAINS:
        assert sorted(domain.next_topic) == list(range(len(COLOURS)))
        assert len(set(SampleCatalogue(domain, SampleSettings(items=32)).listed_cells.tolist())) == 32


def test_names_tell_nothing_of_the_look():
    colours = list(colour_of(SOURCE, SampleSettings(items=2000)).values())
    same = np.mean([a == b for a, b in pairwise(colours)])
    assert abs(same - 1 / len(COLOURS)) < 0.03


# The folder


@pytest.mark.usefixtures("quick")
def test_second_call_keeps_what_is_there(tmp_path, capsys):
    arguments = ["--images", "--users", "40", "--items", "40", "--into", str(tmp_path / "s")]
    main(arguments)
    assert f"{tmp_path / 's'}: sample generated\n" in capsys.readouterr().out
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "s").rglob("*")}
    main(arguments)
    assert "nothing to do" in capsys.readouterr().out
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "s").rglob("*")}


@pytest.mark.usefixtures("quick")
def test_command_line_has_its_own_default_of_items_for_images(tmp_path, capsys):
    main(["--images", "--users", "50", "--into", str(tmp_path / "sample_images")])
    assert "target 50, 400 items each" in capsys.readouterr().out
    assert len(names_in(tmp_path / "sample_images", SOURCE)) == 400


def test_description_tells_settings_hashes_and_that_it_is_not_real(folder):
    found = json.loads((folder / "sample.json").read_text(encoding="utf-8"))
    assert found["settings"] == dataclasses.asdict(SMALL)
    assert found["version"] == images.IMAGE_SAMPLE.version and "not real" in found["notice"]
    assert set(found["sha256"]) == {*LISTS, "source/images", "target/images"}
    assert found["sha256"]["source/images"] == sample_folder.part_hash(folder / "source/images")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("moves", range(12))
def test_interrupted_sample_is_made_anew(tmp_path, monkeypatch, older, moves):
    if older:
        make_image_sample(tmp_path / "s", dataclasses.replace(SMALL, seed=9))
    move, left = sample_folder._move, iter(range(moves))

    def interrupted(part: Path, to: Path) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        move(part, to)

    monkeypatch.setattr(sample_folder, "_move", interrupted)
    if not older and moves >= 6:  # there are no old parts to move away
        assert make_image_sample(tmp_path / "s", SMALL)
        return
    with pytest.raises(KeyboardInterrupt):
        make_image_sample(tmp_path / "s", SMALL)
    monkeypatch.undo()
    monkeypatch.setattr(images, "draw", lambda *_, **__: Image.new("RGB", (2, 2)))
    assert make_image_sample(tmp_path / "s", SMALL)
    assert not make_image_sample(tmp_path / "s", SMALL)
    assert sorted(entry.name for entry in (tmp_path / "s").iterdir()) == ["sample.json", "source", "target"]


def test_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    drawn = iter(range(50))

    def interrupted(*_: object, **__: object) -> Image.Image:
        if next(drawn, None) is None:
            raise KeyboardInterrupt
        return Image.new("RGB", (2, 2))

    monkeypatch.setattr(images, "draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_image_sample(tmp_path / "s", SMALL)
    assert list((tmp_path / "s").iterdir()) == []


def lost_folder(folder: Path) -> None:
    for file in (folder / "target/images").iterdir():
        file.unlink()
    (folder / "target/images").rmdir()


def lost_list(folder: Path) -> None:
    (folder / "source/items.tsv").unlink()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("loss", [lost_folder, lost_list])
def test_missing_parts_are_made_anew(tmp_path, loss):
    make_image_sample(tmp_path, SMALL)
    before = contents(tmp_path)
    loss(tmp_path)
    assert make_image_sample(tmp_path, SMALL)
    assert contents(tmp_path) == before


def edited_picture(folder: Path) -> None:
    Image.new("RGB", (3, 3)).save(folder / "source/images/s0002.jpg")


def added_picture(folder: Path) -> None:
    Image.new("RGB", (3, 3)).save(folder / "target/images/mine.jpg")


def lost_picture(folder: Path) -> None:
    (folder / "target/images/t0002.jpg").unlink()


def edited_users(folder: Path) -> None:
    with (folder / "source/users.tsv").open("a") as file:
        file.write("me\ts0001 s0002 s0003 s0004 s0005\n")


def lost_description(folder: Path) -> None:
    (folder / "sample.json").unlink()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "change", [edited_picture, added_picture, lost_picture, edited_users, lost_description]
)
@pytest.mark.parametrize("seed", [3, 4])
def test_files_that_are_not_the_sample_are_never_overwritten(tmp_path, change, seed):
    make_image_sample(tmp_path, SMALL)
    change(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(UserError, match="--into"):
        make_image_sample(tmp_path, dataclasses.replace(SMALL, seed=seed))
    assert contents(tmp_path) == before


@pytest.mark.usefixtures("quick")
def test_text_and_image_samples_do_not_replace_each_other(tmp_path):
    text = SampleSettings(users=40, target_users=30, items=150, clicks=8, seed=3)
    make_sample(tmp_path / "text", text)
    make_image_sample(tmp_path / "images", SMALL)
    before = contents(tmp_path)
    for make, path in ((make_sample, tmp_path / "images"), (make_image_sample, tmp_path / "text")):
        with pytest.raises(UserError, match="contains other files"):
            make(path, text)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("option", "value"), [("users", 0), ("items", 31), ("clicks", 5), ("seed", -1)])
def test_sizes_out_of_range_are_named(tmp_path, option, value):
    with pytest.raises(UserError, match=f"--{option} {value}: must be"):
        main(["--images", f"--{option}", str(value), "--into", str(tmp_path / "s")])
    assert not (tmp_path / "s").exists()
