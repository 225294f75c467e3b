"""Adressa: event logs in the owner's format, with its quirks; clicks and items written by hand."""

import json

import pytest

from adapter4rec.datasets.sources import SOURCES
from adapter4rec.utils.errors import UserError

PROFILE = [{"item": "article", "groups": [{"count": 1, "group": "pageclass", "weight": 1.0}]}]
USER, OTHER = "cx:2fs9x8i7jvcjyckoxqfa6l4lw:3rr1gvpcbzx8w", "cx:kfubh0ub7g8z3g5mgndoaljqd:1w4rvohza6x7d"
A, B, C = "9f3999bd1a1a8d67bcb073ad54840f15cb30f014", "2607fc7d7b4c0ede839a5ff6d499fa428237443e", "c0ffee"


def event(user, time, article=None, title=None, **more):
    fields = {"profile": PROFILE, "eventId": 335855522, "sessionStart": False, "time": time, "activeTime": 79}
    fields |= {"url": "http://adressa.no", "os": "Android", **more}
    for name, value in (("userId", user), ("id", article), ("title", title)):
        if value is not None:
            fields[name] = value
    return json.dumps(fields)  # non-ASCII letters are escaped, as in the owner's files


FIRST = [
    event(USER, 1483225202),
    event(USER, 1483225203, A, "Se lesernes nyttårsbilder", author=["camilla kilnes"], category1="nyheter"),
    event(OTHER, 1483225203, B, "- Det blir fyrverkeri", author="norunn bergesen", activeTime=None),
    event(USER, 1483225200, B, "- Det blir fyrverkeri"),
    event(None, 1483225204, B, "- Det blir fyrverkeri"),
]
SECOND = [
    event(OTHER, 1483311603, A, 'Her er «nyttårsbildene» "i år"'),
    event(OTHER, 1483311604, C),
    event(OTHER, 1483311604, "", "Forsiden"),
]


@pytest.fixture
def week(tmp_path):
    folder = tmp_path / "raw [1]" / "one_week"
    folder.mkdir(parents=True)
    (folder / "20170101").write_text("\n".join(FIRST) + "\n")
    (folder / "20170102").write_text("\n".join(SECOND))
    (folder / "README").write_text("not a day")
    return folder


def read(folder):
    return SOURCES["adressa"].read(folder)


def test_events_on_articles_are_clicks(week):
    assert read(week.parent).interactions.collect().rows() == [
        (USER, A, 1483225203),
        (OTHER, B, 1483225203),
        (USER, B, 1483225200),
        (OTHER, A, 1483311603),
        (OTHER, C, 1483311604),
    ]


def test_articles_have_their_latest_title(week):
    assert dict(read(week).items.collect().rows()) == {
        A: 'Her er «nyttårsbildene» "i år"',
        B: "- Det blir fyrverkeri",
        C: None,
    }


def test_notes_count_what_was_met(week):
    assert read(week).notes == [
        "8 events of 2 days, 5 of them clicks on articles",
        "2 events without id (front page, sections): left out",
        "1 events on articles without userId: left out",
        "1 articles changed their title: the latest was taken",
        "1 articles without a title",
    ]


@pytest.mark.parametrize("name", ["20170103.json", "20170103.jsonl"])
def test_days_with_a_suffix_are_read(week, name):
    (week / name).write_text("\n" + event(USER, 1483398003, C, "Nytt") + "\n\n")
    raw = read(week)
    assert raw.interactions.collect().rows()[-1] == (USER, C, 1483398003)
    assert dict(raw.items.collect().rows())[C] == "Nytt"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (SECOND[0][:90], r"20170102:1: not JSON; the file is cut off"),
        (SECOND[0] + "\n" + SECOND[1][:50] + "\n" + SECOND[2], r"20170102:2: not JSON; expected one event"),
        ("userId,id,time\nu,a,1\n", r"20170102:1: not JSON"),
        ("[1, 2]\n", r"20170102:1: expected one event"),
        (event(USER, "today", A, "x") + "\n", r"20170102:1: time is not a number of seconds"),
        ("", r"20170102: the file is empty; expected a day of Adressa"),
    ],
)
def test_wrong_files_are_named(week, content, message):
    (week / "20170102").write_text(content)
    with pytest.raises(UserError, match=message):
        read(week)


def test_missing_packed_and_doubled_days_are_named(week, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        read(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "one_week.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(UserError, match=r"expected files of days such as 20170101.*unpack one_week\.tar\.gz"):
        read(tmp_path / "empty")
    three = week.parent / "three_month"
    three.mkdir()
    (three / "20170101").write_text(FIRST[1] + "\n")
    with pytest.raises(UserError, match=r"three_month/20170101: the same day as .*one_week/20170101"):
        read(week.parent)
    (three / "20170104.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(UserError, match=r"20170104\.gz: the file is compressed with gzip"):
        read(three)


def test_other_events_are_refused(tmp_path):
    (tmp_path / "20170101").write_text('{"user": "u", "article": "a", "timestamp": 1}\n')
    with pytest.raises(UserError, match="no event has userId, id and time"):
        read(tmp_path)
