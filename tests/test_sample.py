"""The generated sample: its form, what decides the clicks in it, and what it never overwrites."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from adapter4rec.datasets.sample import SampleSettings, behaviour, make_sample, text
from adapter4rec.datasets.sample.behaviour import SampleDomain
from adapter4rec.datasets.sample.command import main
from adapter4rec.datasets.sample.folder import LISTS
from adapter4rec.datasets.sample.text import SOURCE, TARGET, WORDS
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import file_hash

SMALL = SampleSettings(users=60, target_users=40, items=150, clicks=8, seed=3)
KEPT_CLICKS = 23  # max_seq_len + 3 for text


@dataclass
class Data:
    """A domain as it stands in its files; items are numbers in file order, topic and mood read off titles."""

    names: list[str]
    titles: list[str]
    topic: np.ndarray
    mood: np.ndarray
    users: list[np.ndarray]

    @property
    def popularity(self) -> np.ndarray:
        """Clicks of each item in the training part."""
        return np.bincount(np.concatenate([user[:-2] for user in self.users]), minlength=len(self.names))


def topic_words(words: dict[str, np.ndarray]) -> np.ndarray:
    """All words of each topic, ``[topics, words]``."""
    return np.concatenate([words["noun"], words["action"], words["adjective"]], axis=1)


def meanings(domain: SampleDomain) -> tuple[dict[str, int], dict[str, int]]:
    """The topic and the mood that a word stands for."""
    topic_of, mood_of = (
        {word: number for number, row in enumerate(table.tolist()) for word in row}
        for table in (topic_words(WORDS[domain.name]), WORDS[domain.name]["mood"])
    )
    return topic_of, mood_of


def title_words(title: str) -> list[str]:
    return re.sub("[:,]", "", title).lower().split()


def read(folder: Path, domain: SampleDomain) -> Data:
    item_lines = (folder / domain.name / "items.tsv").read_text(encoding="utf-8").splitlines()
    user_lines = (folder / domain.name / "users.tsv").read_text(encoding="utf-8").splitlines()
    names, titles = zip(*(line.split("\t") for line in item_lines), strict=True)
    number = {name: place for place, name in enumerate(names)}
    topic_of, mood_of = meanings(domain)
    topics = [{topic_of[word] for word in title_words(title) if word in topic_of} for title in titles]
    moods = [{mood_of[word] for word in title_words(title) if word in mood_of} for title in titles]
    assert all(len(found) == 1 for found in topics + moods), "a title has one topic and one mood"
    users = [np.array([number[name] for name in line.split("\t")[1].split(" ")]) for line in user_lines]
    return Data(
        list(names),
        list(titles),
        np.array([found.pop() for found in topics]),
        np.array([found.pop() for found in moods]),
        users,
    )


def hit_rate(data: Data, scores: list[np.ndarray]) -> float:
    """HR@10 in per cent of the last click; earlier clicks are masked, a masked target and ties are misses."""
    hits = 0
    for user, all_scores in zip(data.users, scores, strict=True):
        history, target = user[-KEPT_CLICKS:-1], user[-1]
        masked = all_scores.copy()
        masked[history] = -np.inf
        hits += target not in history and np.count_nonzero(masked >= masked[target]) <= 10
    return 100 * hits / len(data.users)


def oracle(data: Data, next_topic: tuple[int, ...], mood_share: float) -> list[np.ndarray]:
    """Scores of one who knows what titles mean, a rule of topics, and how many clicks the mood decides."""
    weight = data.popularity + 0.5
    cells = np.zeros((text.TOPICS, text.MOODS))
    np.add.at(cells, (data.topic, data.mood), weight)
    share_of_cell = weight / cells[data.topic, data.mood]
    share_of_topic = weight / cells.sum(axis=1)[data.topic]
    follow = behaviour.FOLLOW_RULE / 100

    def scores(history: np.ndarray) -> np.ndarray:
        topics = data.topic[history]
        last = topics[-1]
        first_of_run = len(topics) < 2 or topics[-2] != last
        stay = (behaviour.STAY_AFTER_FIRST if first_of_run else behaviour.STAY_AFTER_MORE) / 100
        topic = (1 - stay) * (1 - follow) * np.bincount(topics, minlength=text.TOPICS) / len(topics)
        topic[last] += stay
        topic[next_topic[last]] += (1 - stay) * follow
        liking = np.exp(2.0 * np.bincount(data.mood[history], minlength=text.MOODS))
        mood = liking / liking.sum()
        in_topic = mood_share * mood[data.mood] * share_of_cell + (1 - mood_share) * share_of_topic
        return topic[data.topic] * in_topic

    return [scores(user[-KEPT_CLICKS:-1]) for user in data.users]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    into = tmp_path_factory.mktemp("sample") / "made"
    assert make_sample(into, SampleSettings())
    return into


@pytest.fixture(scope="module")
def source(folder) -> Data:
    return read(folder, SOURCE)


@pytest.fixture(scope="module")
def target(folder) -> Data:
    return read(folder, TARGET)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


# The form of the files


def test_same_settings_give_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        make_sample(tmp_path / name, SampleSettings(60, 40, 150, 8, seed))
    one, same, other = (contents(tmp_path / name) for name in ("one", "same", "other"))
    assert one == same
    assert all(one[name] != other[name] for name in LISTS)


def test_bytes_do_not_drift(tmp_path):
    """A changed generator needs a new version, and these hashes of it."""
    text.write(SMALL, tmp_path)
    digest = hashlib.sha256(b"".join((tmp_path / name).read_bytes() for name in LISTS)).hexdigest()
    assert (text.TEXT_SAMPLE.version, digest[:16]) == (1, "435d3a133fe30935")


def test_sizes_are_those_asked_for(tmp_path):
    make_sample(tmp_path / "s", SMALL)
    lines = {name: content.count(b"\n") for name, content in contents(tmp_path / "s").items()}
    assert [lines[name] for name in LISTS] == [60, 150, 40, 150]


def test_every_line_is_well_formed(folder):
    patterns = {
        "source/items.tsv": r"news\d+\t[A-Z][\w',: -]+",
        "target/items.tsv": r"show\d+\t[A-Z][\w',: -]+",
        "source/users.tsv": r"reader\d+\tnews\d+( news\d+){4,}",
        "target/users.tsv": r"listener\d+\tshow\d+( show\d+){4,}",
    }
    for name, pattern in patterns.items():
        content = (folder / name).read_bytes().decode("utf-8")
        assert content.endswith("\n") and "\r" not in content
        lines = content[:-1].split("\n")
        assert [line for line in lines if not re.fullmatch(pattern, line)] == []
        assert len({line.split("\t")[0] for line in lines}) == len(lines)


@pytest.mark.parametrize("name", ["source", "target"])
def test_histories_are_long_enough_and_of_the_asked_mean(name, request):
    lengths = [len(user) for user in request.getfixturevalue(name).users]  # reading resolved every item
    assert min(lengths) >= 5
    assert 12 <= np.mean(lengths) <= 13.5
    assert max(lengths) > 40


@pytest.mark.parametrize("name", ["source", "target"])
def test_titles_are_short_and_differ(name, request):
    titles = request.getfixturevalue(name).titles
    assert {len(title.split()) for title in titles} <= {4, 5, 6, 7, 8}
    assert len(set(titles)) > 0.99 * len(titles)


def test_domains_share_no_item_no_title_and_no_word_that_matters(source, target):
    assert not set(source.names) & set(target.names)
    assert not set(source.titles) & set(target.titles)
    halves = [set().union(*meanings(domain)) for domain in (SOURCE, TARGET)]
    assert not halves[0] & halves[1]


def test_each_word_has_one_meaning():
    for of_domain in WORDS.values():
        words = [*topic_words(of_domain).flat, *of_domain["mood"].flat]
        assert len(words) == len(set(words))
        neutral = {word for pattern in of_domain["pattern"].flat for word in title_words(pattern)}
        assert not (neutral | set(of_domain["filler"].flat)) & set(words)


# What decides the clicks


@pytest.mark.parametrize("name", ["source", "target"])
def test_popularity_is_skewed_yet_a_weak_recommender(name, request):
    data = request.getfixturevalue(name)
    clicks = np.sort(data.popularity)[::-1]
    assert clicks[:100].sum() > 0.18 * clicks.sum()
    assert clicks[-500:].sum() < 0.35 * clicks.sum()
    assert 0.5 < hit_rate(data, [data.popularity.astype(float)] * len(data.users)) < 4


def test_who_knows_the_rules_is_far_above_popularity(source, target):
    assert hit_rate(source, oracle(source, SOURCE.next_topic, 0.6)) > 35
    assert hit_rate(target, oracle(target, TARGET.next_topic, 0.9)) > 50


def test_the_source_rules_are_worth_something_on_the_target_but_clearly_less(target):
    own = hit_rate(target, oracle(target, TARGET.next_topic, 0.9))
    topics_of_source = hit_rate(target, oracle(target, SOURCE.next_topic, 0.9))
    no_mood = hit_rate(target, oracle(target, TARGET.next_topic, 0.0))
    neither = hit_rate(target, oracle(target, SOURCE.next_topic, 0.0))
    assert 10 < neither < no_mood - 3
    assert no_mood < own - 15
    assert topics_of_source < own - 5


def test_rules_of_topics_are_permutations_that_agree_in_part():
    for domain in (SOURCE, TARGET):
        assert sorted(domain.next_topic) == list(range(text.TOPICS))
    agree = np.mean(np.array(SOURCE.next_topic) == TARGET.next_topic)
    assert 0.3 < agree < 0.8


def test_some_clicks_repeat(target):
    repeats = np.mean([len(set(user.tolist())) < len(user) for user in target.users])
    assert 0.1 < repeats < 0.6


# The folder


def test_second_call_reuses(tmp_path, capsys):
    arguments = ["--users", "60", "--items", "150", "--seed", "3", "--into"]
    main([*arguments, str(tmp_path / "s")])
    assert f"{tmp_path / 's'}: sample generated\n" in capsys.readouterr().out
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "s").rglob("*")}
    main([*arguments, str(tmp_path / "s")])
    assert "nothing to do" in capsys.readouterr().out
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "s").rglob("*")}


def test_older_sample_is_made_anew(tmp_path):
    make_sample(tmp_path / "s", SMALL)
    newer = SampleSettings(60, 40, 150, 8, seed=4)
    assert make_sample(tmp_path / "s", newer)
    text.write(newer, tmp_path / "expected")
    expected = contents(tmp_path / "expected")
    assert {name: contents(tmp_path / "s")[name] for name in LISTS} == expected


def test_interrupted_sample_is_made_anew(tmp_path):
    make_sample(tmp_path, SMALL)
    (tmp_path / "target/items.tsv").unlink()
    assert make_sample(tmp_path, SMALL)
    assert not make_sample(tmp_path, SMALL)


def test_description_tells_settings_hashes_and_that_it_is_not_real(tmp_path):
    make_sample(tmp_path, SMALL)
    found = json.loads((tmp_path / "sample.json").read_text(encoding="utf-8"))
    assert found["settings"] == {"users": 60, "target_users": 40, "items": 150, "clicks": 8, "seed": 3}
    assert found["version"] == text.TEXT_SAMPLE.version and "not real" in found["notice"]
    assert found["sha256"] == {name: file_hash(tmp_path / name) for name in LISTS}


def test_readme_beside_the_sample_stays(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    assert make_sample(tmp_path, SMALL)
    assert (tmp_path / "README.md").read_text() == "mine"


def edited_users(folder: Path) -> None:
    with (folder / "source/users.tsv").open("a") as file:
        file.write("me\tnews1 news2 news3 news4 news5\n")


def lost_description(folder: Path) -> None:
    (folder / "sample.json").unlink()


def other_description(folder: Path) -> None:
    (folder / "sample.json").write_text('{"sha256": {}}')


def broken_description(folder: Path) -> None:
    (folder / "sample.json").write_text("{")


@pytest.mark.parametrize("change", [edited_users, lost_description, other_description, broken_description])
@pytest.mark.parametrize("seed", [3, 4])
def test_files_that_are_not_the_sample_are_never_overwritten(tmp_path, change, seed):
    make_sample(tmp_path, SMALL)
    change(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(UserError, match="--into"):
        make_sample(tmp_path, SampleSettings(60, 40, 150, 8, seed))
    assert contents(tmp_path) == before


def test_a_file_in_the_folders_place_is_an_error(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="contains other files"):
        make_sample(tmp_path / "file", SMALL)
    with pytest.raises(UserError):
        main(["--into", str(tmp_path / "file" / "below")])
    assert (tmp_path / "file").read_text() == "mine"


def test_another_programs_description_is_left_alone(tmp_path):
    (tmp_path / "sample.json").write_text('{"mine": {}, "sha256": {}}')
    with pytest.raises(UserError, match="contains other files"):
        make_sample(tmp_path, SMALL)
    assert list(contents(tmp_path)) == ["sample.json"]


def test_trouble_with_the_disk_is_told_without_a_traceback(tmp_path):
    (tmp_path / "sample.json").mkdir()
    with pytest.raises(UserError, match="other files"):
        main(["--into", str(tmp_path)])


@pytest.mark.parametrize(
    ("option", "value"),
    [("users", 0), ("target-users", 0), ("items", 50), ("clicks", 5), ("seed", -1)],
)
def test_sizes_out_of_range_are_named(tmp_path, option, value):
    with pytest.raises(UserError, match=f"--{option.replace('-', '_')} {value}: must be"):
        main([f"--{option}", str(value), "--into", str(tmp_path / "s")])
    assert not (tmp_path / "s").exists()
