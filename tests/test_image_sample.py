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
from adapter4rec.datasets.sample.behaviour import Dice, user_lines
from adapter4rec.datasets.sample.command import main
from adapter4rec.datasets.sample.drawing import draw
from adapter4rec.datasets.sample.folder import LISTS
from adapter4rec.datasets.sample.images import SOURCE, TARGET, ImageDomain, fill_catalogue
from adapter4rec.datasets.sample.looks import COLOURS, GREY, TINY_SIZES, Form, Look, Pattern, draw_looks
from adapter4rec.datasets.sample.silhouettes import ACCESSORIES, GARMENTS, Paint, Shape, Silhouette
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
    monkeypatch.setattr(images, "draw", lambda look, _: Image.new("RGB", (2, 2), (look.hue % 256, 0, 0)))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def names_in(folder: Path, domain: ImageDomain) -> list[str]:
    return (folder / domain.name / "items.tsv").read_text(encoding="utf-8").splitlines()


def pictures(folder: Path, domain: ImageDomain) -> dict[str, Path]:
    return {file.stem: file for file in (folder / domain.name / "images").iterdir()}


# The form of the files


def test_same_settings_give_the_same_bytes_and_another_seed_others(tmp_path, folder):
    for name, seed in (("same", 3), ("other", 4)):
        make_image_sample(tmp_path / name, dataclasses.replace(SMALL, seed=seed))
    one, same, other = (contents(path) for path in (folder, tmp_path / "same", tmp_path / "other"))
    assert one == same
    drawn = [name for name in one if name in other and "images" in name]
    assert len(drawn) > 60
    assert not [name for name in (*drawn, "source/users.tsv", "target/users.tsv") if one[name] == other[name]]


def test_lists_and_looks_do_not_drift():
    """A changed generator needs a new version, and this hash of it; Pillow plays no part in it."""
    digest = hashlib.sha256()
    for domain in DOMAINS:
        catalogue, looks = fill_catalogue(domain, SMALL)
        for name, look in looks.items():
            drawn = json.dumps(dataclasses.astuple(look), default=lambda form: form.name)
            digest.update(f"{name} {drawn}\n".encode())
        lines = user_lines(catalogue, dataclasses.replace(SMALL, target_users=40))
        digest.update("".join(f"{line}\n" for line in lines).encode())
    assert (images.IMAGE_SAMPLE.version, digest.hexdigest()[:16]) == (1, "abeb6def7b49464a")


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
    assert not {one.parts for one in SOURCE.silhouettes} & {one.parts for one in TARGET.silhouettes}


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.name)
def test_pictures_come_in_all_promised_forms(folder, domain):
    (_, looks), seen = fill_catalogue(domain, SMALL), Counter()
    for name, file in pictures(folder, domain).items():
        look = looks[name]
        with Image.open(file) as picture:
            picture.load()
        seen[look.form] += 1
        expected = {Form.GREY: ("JPEG", "L"), Form.CUTOUT: ("PNG", "RGBA")}.get(look.form, ("JPEG", "RGB"))
        assert (picture.format, picture.mode) == expected
        assert picture.size == look.size
        assert (picture.size in TINY_SIZES) if look.form is Form.TINY else min(picture.size) >= 224
        if look.form is Form.CUTOUT:
            assert picture.getchannel("A").getextrema() == (0, 255)
        if look.form is Form.GREY:
            assert look.colour == GREY
    assert seen == {Form.PHOTO: 35, Form.GREY: 2, Form.CUTOUT: 2, Form.TINY: 1}


def test_a_large_catalogue_has_the_promised_shares_and_sizes():
    looks = draw_looks(np.arange(4000) % SOURCE.cells, 8, Dice(1))
    shares = Counter(look.form for look in looks)
    assert (shares[Form.GREY], shares[Form.CUTOUT], shares[Form.TINY]) == (120, 120, 80)
    sizes = Counter(look.size for look in looks if look.form is not Form.TINY)
    assert sizes.most_common(1)[0][0] == (224, 224)
    assert {side for size in sizes for side in size} <= set(range(224, 401))
    assert sum(count for (width, height), count in sizes.items() if width != height) > 1000
    assert {look.kind for look in looks} == set(range(8))


# What the pictures show


def look_of(pattern: Pattern) -> Look:
    """An upright blue and white look, for a picture that pixels are read off."""
    (look,) = draw_looks(np.array([pattern]), 1, Dice(5))
    upright = {"turn": 0, "slant": 0, "shift_x": 0, "shift_y": 0, "size": (224, 224), "form": Form.PHOTO}
    colour = {"hue": 215, "saturation": 70, "lightness": 45, "dark_accent": False}
    return dataclasses.replace(look, **upright, **colour)


SHEET = Silhouette("sheet", (Shape(Paint.CLOTH, ((-80, -80), (80, -80), (80, 80), (-80, 80))),))


def changes_along(line: np.ndarray) -> int:
    """How often a line of grey values goes from dark to light or back."""
    middle = (line.min() + line.max()) / 2
    return np.count_nonzero(np.diff(line > middle)) if np.ptp(line) > 60 else 0


def test_each_pattern_is_seen_in_its_own_way():
    across, down = {}, {}
    for pattern in Pattern:
        grey = np.asarray(draw(look_of(pattern), SHEET).convert("L"), dtype=float)[40:-40, 40:-40]
        across[pattern] = max(changes_along(line) for line in grey)
        down[pattern] = max(changes_along(line) for line in grey.T)
    assert across[Pattern.PLAIN] == down[Pattern.PLAIN] == 0
    assert across[Pattern.STRIPED] == 0 and down[Pattern.STRIPED] >= 6
    assert min(across[Pattern.CHECKED], down[Pattern.CHECKED]) >= 6
    dotted = np.asarray(draw(look_of(Pattern.DOTTED), SHEET).convert("L"), dtype=float)[40:-40, 40:-40]
    assert min(across[Pattern.DOTTED], down[Pattern.DOTTED]) >= 4
    assert min(changes_along(line) for line in dotted) < across[Pattern.DOTTED] - 3, "between rows of dots"


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.name)
def test_plain_items_have_the_colour_of_their_topic(domain):
    cells = np.arange(len(COLOURS)) * len(Pattern)
    for look in draw_looks(cells, len(domain.silhouettes), Dice(7)):
        picture = draw(dataclasses.replace(look, form=Form.PHOTO), domain.silhouettes[look.kind])
        pixels = np.asarray(picture).reshape(-1, 3)
        spread = np.ptp(pixels.astype(int), axis=1)
        if look.colour == GREY:
            assert np.percentile(spread, 95) < 40
            continue
        strong = pixels[spread > 0.75 * spread.max()].mean(axis=0)
        hue = 360 * colorsys.rgb_to_hls(*strong / 255)[0]
        lowest, highest = COLOURS[look.colour].hue
        middle = (lowest + highest) / 2
        off = abs((hue - middle + 180) % 360 - 180)
        assert off <= (highest - lowest) / 2 + 5, (COLOURS[look.colour].name, hue)


def test_no_two_colours_overlap():
    hues = [degree % 360 for one in COLOURS[:GREY] for degree in range(one.hue[0], one.hue[1] + 1)]
    assert len(hues) == len(set(hues))


def test_items_of_a_cell_are_different_pictures_also_to_a_small_encoder():
    looks = draw_looks(np.zeros(12, dtype=int), 1, Dice(2))
    small = [
        np.asarray(draw(look, GARMENTS[0]).convert("RGB").resize((16, 16)), dtype=float) for look in looks
    ]
    distances = [np.abs(a - b).mean() for place, a in enumerate(small) for b in small[:place]]
    assert min(distances) > 2


def test_products_lie_within_the_picture():
    points = [xy for one in (*GARMENTS, *ACCESSORIES) for part in one.parts for xy in part.points]
    assert np.abs(points).max() < 100


def test_a_neckline_is_open():
    (top,) = (one for one in GARMENTS if one.name == "tank top")
    column = np.asarray(draw(look_of(Pattern.PLAIN), top))[:, 112]
    first = np.flatnonzero(column.min(axis=1) < 150)[0]
    straps = min(y for part in top.parts for _, y in part.points)
    assert first > 112 + (straps + 8) * 1.12


# What decides the clicks


@pytest.fixture(scope="module")
def crowds() -> dict[str, list[list[Look]]]:
    """What the users of a larger sample see, click by click, by domain."""
    settings = SampleSettings(users=600, target_users=600, items=400, clicks=13, seed=1)
    seen = {}
    for domain in DOMAINS:
        catalogue, looks = fill_catalogue(domain, settings)
        histories = [line.split("\t")[1].split(" ") for line in user_lines(catalogue, settings)]
        seen[domain.name] = [[looks[name] for name in history] for history in histories]
    return seen


def follow_share(crowd: list[list[Look]], rule: tuple[int, ...], topics: range) -> float:
    """Of the moves from one of ``topics`` to another colour, the share that the rule names."""
    moves = [
        (last.colour, look.colour)
        for user in crowd
        for last, look in pairwise(user)
        if last.colour != look.colour and last.colour in topics
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
        name: np.mean([max(Counter(look.pattern for look in user).values()) / len(user) for user in crowd])
        for name, crowd in crowds.items()
    }
    assert 0.6 < share["source"] < 0.75
    assert share["target"] > 0.8


def test_rules_are_permutations_and_every_cell_has_items():
    for domain in DOMAINS:
        assert sorted(domain.next_topic) == list(range(len(COLOURS)))
        looks = fill_catalogue(domain, SampleSettings(items=32))[1].values()
        assert len({(look.colour, look.pattern) for look in looks}) == 32


def test_names_tell_nothing_of_the_look():
    looks = list(fill_catalogue(SOURCE, SampleSettings(items=2000))[1].values())
    same = np.mean([a.colour == b.colour for a, b in pairwise(looks)])
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
    monkeypatch.setattr(images, "draw", lambda *_: Image.new("RGB", (2, 2)))
    assert make_image_sample(tmp_path / "s", SMALL)
    assert not make_image_sample(tmp_path / "s", SMALL)
    assert sorted(entry.name for entry in (tmp_path / "s").iterdir()) == ["sample.json", "source", "target"]


def test_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    drawn = iter(range(50))

    def interrupted(*_: object) -> Image.Image:
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
    Image.new("RGB", (3, 3)).save(folder / "source/images/s0001.jpg")


def added_picture(folder: Path) -> None:
    Image.new("RGB", (3, 3)).save(folder / "target/images/mine.jpg")


def lost_picture(folder: Path) -> None:
    (folder / "target/images/t0001.jpg").unlink()


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
