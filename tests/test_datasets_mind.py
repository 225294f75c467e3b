"""MIND: files in the owner's format, with its quirks; clicks and items written by hand."""

from datetime import datetime, timezone

import pytest

from adapter4rec.datasets.sources import SOURCES
from adapter4rec.utils.errors import UserError

TRAIN_NEWS = [
    "N1\tsports\tgolf\tPGA Tour winners\tA gallery of winners.\thttps://e/1\t[]\t[]",
    'N2\tnews\tnewsus\t"Wheel" of Fortune\t\thttps://e/2\t[{"Label": "Wheel"}]\t[]',
    "N3\tnews\tnewsus\tDispose of unwanted prescription drugs\tDrugs.\thttps://e/3\t\t",
    "N4\thealth\tmedical\tCafé closes\tIt’s shut.\thttps://e/4\t[]\t[]",
]
TEST_NEWS = [TRAIN_NEWS[0], TRAIN_NEWS[1].replace("Fortune", "Fortune, again"), "N5\ta\tb\tNew\t\t\t[]\t[]"]
TRAIN = [
    # the history repeats; impressions are not in order of time
    "2\tU1\t11/11/2019 1:03:00 PM\tN1 N2\tN4-1 N3-0",
    "1\tU1\t11/11/2019 9:05:58 AM\tN1 N2\tN3-1 N4-0",
    "3\tU2\t11/12/2019 12:00:01 AM\t\tN1-0 N2-1 N4-1",
]
DEV = ["1\tU3\t11/15/2019 8:55:22 AM\tN3 N3 N1\tN2-0 N9-1"]
# the history of U1 now holds the clicks of train, and N5, which no impression shows
TEST = ["1\tU1\t11/16/2019 3:00:00 AM\tN1 N2 N3 N4 N5\tN1 N2", "2\tU4\t11/16/2019 4:00:00 AM\tN4\tN2 N3"]


def seconds(*date):
    return int(datetime(*date, tzinfo=timezone.utc).timestamp())


def write(folder, behaviors, news):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "behaviors.tsv").write_text("\n".join(behaviors) + "\n", encoding="utf-8")
    (folder / "news.tsv").write_text("\n".join(news) + "\n", encoding="utf-8")


@pytest.fixture
def mind(tmp_path):
    write(tmp_path / "MINDlarge_train" / "MINDlarge_train", TRAIN, TRAIN_NEWS)  # nested, as newer archives
    write(tmp_path / "MINDlarge_dev", DEV, TRAIN_NEWS[:3])
    write(tmp_path / "MINDlarge_test", TEST, TEST_NEWS)
    write(tmp_path / "__MACOSX" / "MINDlarge_dev", ["rubbish"], ["rubbish"])
    return tmp_path


def read(folder):
    return SOURCES["mind"].read(folder)


def sequences(raw):
    """Clicks of each user in order of time; rows of equal time keep their order."""
    found = {}
    for user, item, _ in raw.interactions.collect().sort("time", maintain_order=True).rows():
        found.setdefault(user, []).append(item)
    return found


def test_histories_and_clicks_are_merged_in_order_of_time(mind):
    assert sequences(read(mind)) == {
        "U1": ["N1", "N2", "N3", "N4", "N5"],
        "U2": ["N2", "N4"],
        "U3": ["N3", "N3", "N1", "N9"],
        "U4": ["N4"],
    }


def test_clicks_have_the_time_of_their_impression_and_histories_come_before_their_log(mind):
    rows = read(mind).interactions.collect().rows()
    times = {(user, item): time for user, item, time in rows}
    assert times["U1", "N3"] == seconds(2019, 11, 11, 9, 5, 58)
    assert times["U1", "N4"] == seconds(2019, 11, 11, 13, 3)
    assert times["U2", "N2"] == times["U2", "N4"] == seconds(2019, 11, 12, 0, 0, 1)
    start = seconds(2019, 11, 11, 9, 5, 58)
    assert (times["U1", "N1"], times["U1", "N2"]) == (start - 2, start - 1)
    assert times["U1", "N5"] == times["U4", "N4"] == seconds(2019, 11, 16, 3) - 1


def test_news_of_all_parts_are_read_without_quoting(mind):
    items = {row["item"]: row for row in read(mind).items.collect().rows(named=True)}
    assert list(items) == ["N4", "N3", "N1", "N2", "N5"]  # where each is listed last
    assert items["N2"] == {"item": "N2", "title": '"Wheel" of Fortune, again', "abstract": None}
    assert items["N4"] == {"item": "N4", "title": "Café closes", "abstract": "It’s shut."}
    assert items["N1"]["abstract"] == "A gallery of winners."


def test_notes_count_what_was_met(mind):
    notes = read(mind).notes
    for expected in (
        "6 impressions in 3 logs (MINDlarge_train/MINDlarge_train, MINDlarge_dev, MINDlarge_test)",
        "2 impressions without labels",
        "1 impressions with several clicks",
        "1 impressions with an empty history",
        "1 impressions repeat the history of another one",
        "7 clicks of histories have no time",
        "4 clicks of later histories were already known",
        "5 news in 3 files, 5 of them listed more than once",
        "1 news differ between the files",
        "2 news without an abstract",
        "1 titles begin with a quotation mark",
        "1 clicks on news that no news.tsv lists",
    ):
        assert any(note.startswith(expected) for note in notes), (expected, notes)


def test_a_history_that_grows_within_a_log_is_read_once(tmp_path):
    log = [
        "1\tU1\t11/11/2019 9:00:00 AM\tN1\tN2-1",
        "2\tU1\t11/11/2019 10:00:00 AM\tN1 N2\tN3-1",
        "3\tU1\t11/11/2019 11:00:00 AM\tN1 N2 N3\tN1-1 N2-0",
    ]
    write(tmp_path / "train", log, TRAIN_NEWS)
    assert sequences(read(tmp_path)) == {"U1": ["N1", "N2", "N3", "N1"]}


def test_a_history_repeats_clicks_of_a_log_in_which_it_was_empty(tmp_path):
    write(tmp_path / "train", ["1\tU1\t11/11/2019 9:00:00 AM\t\tN1-1 N2-1"], TRAIN_NEWS)
    write(tmp_path / "dev", ["1\tU1\t11/15/2019 9:00:00 AM\tN1 N2\tN4-1"], TRAIN_NEWS)
    assert sequences(read(tmp_path)) == {"U1": ["N1", "N2", "N4"]}


def test_line_ends_of_windows_and_a_byte_order_mark(tmp_path):
    write(tmp_path, [], [])
    (tmp_path / "behaviors.tsv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*TRAIN, ""]).encode())
    (tmp_path / "news.tsv").write_bytes("\r\n".join([*TRAIN_NEWS, "", ""]).encode())
    raw = read(tmp_path)
    assert sequences(raw)["U1"] == ["N1", "N2", "N3", "N4"]
    assert raw.items.collect().height == 4


@pytest.mark.parametrize(
    ("behaviors", "news", "message"),
    [
        ("\n".join(TRAIN_NEWS) + "\n", None, r"behaviors.tsv:1: expected 5 fields.*4 of 4 lines are wrong"),
        (None, "\n".join(TRAIN) + "\n", r"news.tsv:1: expected 8 fields separated by tabs: item, category"),
        ("\n".join(TRAIN), None, r"behaviors.tsv: cut off: the last line has no line end"),
        ("\n".join([*TRAIN, "4\tU4\t11/1"]) + "\n", None, r"behaviors.tsv:4: expected 5 fields.*cut off"),
        (
            "1\tU1\t2019-11-11 09:00:00\tN1\tN2-1\n",
            None,
            r"behaviors.tsv:1: expected a time such as 11/15/2019",
        ),
        (
            "1\tU1\t11/11/2019 9:00:00 AM\tN1\tN2-1 N3\n",
            None,
            r"behaviors.tsv:1: expected news such as N55689-1",
        ),
        ("", None, r"behaviors.tsv: the file is empty; expected behaviors.tsv of MIND"),
        ("<!DOCTYPE html>\n<html></html>\n", None, r"behaviors.tsv: the file is a web page"),
    ],
)
def test_wrong_files_are_named(tmp_path, behaviors, news, message):
    write(tmp_path / "train", TRAIN, TRAIN_NEWS)
    if behaviors is not None:
        (tmp_path / "train" / "behaviors.tsv").write_text(behaviors, encoding="utf-8")
    if news is not None:
        (tmp_path / "train" / "news.tsv").write_text(news, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x1f\x8b\x08", "compressed with gzip; unpack it first"),
        (b"PK\x03\x04", "ZIP archive or an Excel workbook; unpack it first"),
        ("1\tU1\n".encode("utf-16"), "UTF-16; convert it to UTF-8"),
        (b"1\tU1\t\x00\x00", "binary"),
        (b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
        (
            b'\xef\xbb\xbf<?xml version="1.0"?><Error><Code>PublicAccessNotPermitted</Code>',
            "web page, not data",
        ),
        ("1\tU1\t11/11/2019 9:00:00 AM\tN1\tNø-1\n".encode("latin-1"), "the text is not UTF-8"),
    ],
)
def test_files_that_are_no_text_are_named(tmp_path, content, message):
    write(tmp_path, TRAIN, TRAIN_NEWS)
    (tmp_path / "behaviors.tsv").write_bytes(content)
    with pytest.raises(UserError, match=rf"behaviors\.tsv: .*{message}"):
        read(tmp_path)


def test_missing_packed_and_unfinished_files_are_named(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        read(tmp_path / "nowhere")
    (tmp_path / "MINDsmall_train.zip").write_bytes(b"PK\x03\x04")
    (tmp_path / "MINDsmall_dev.zip.part").write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match=r"unpack MINDsmall_train\.zip first; MINDsmall_dev\.zip\.part is an"):
        read(tmp_path)
    (tmp_path / "MINDsmall_train.zip").write_bytes(b"\xef\xbb\xbf<?xml version='1.0'?><Error>")
    with pytest.raises(UserError, match=r"MINDsmall_train\.zip is no archive but a web page with an error"):
        read(tmp_path)
    write(tmp_path / "MINDsmall_train", TRAIN, TRAIN_NEWS)
    (tmp_path / "MINDsmall_train" / "news.tsv").unlink()
    with pytest.raises(UserError, match=r"news\.tsv: no such file; expected news.tsv of MIND, 8 columns"):
        read(tmp_path)


def test_two_sizes_or_the_same_log_twice_are_refused(tmp_path):
    write(tmp_path / "MINDsmall_dev", DEV, TRAIN_NEWS)
    write(tmp_path / "MINDlarge_train", TRAIN, TRAIN_NEWS)
    with pytest.raises(UserError, match="holds MINDsmall and MINDlarge"):
        read(tmp_path)
    write(tmp_path / "twice" / "train", TRAIN, TRAIN_NEWS)
    write(tmp_path / "twice" / "copy", TRAIN, TRAIN_NEWS)
    with pytest.raises(UserError, match="the same file as"):
        read(tmp_path / "twice")


def test_rows_have_the_same_order_at_each_reading(tmp_path):
    log = [
        f"{n}\tU{n % 700}\t11/11/2019 9:{n % 60:02}:00 AM\tN{n % 700} N1 N7\tN{n % 90}-1" for n in range(5000)
    ]
    later = [f"{n}\tU{n}\t11/12/2019 9:00:00 AM\tN{n} N1 N7 N{n % 90} N8\tN1 N2" for n in range(1400)]
    write(tmp_path / "train", log, TRAIN_NEWS)
    write(tmp_path / "test", later, TRAIN_NEWS)
    first, second = read(tmp_path), read(tmp_path)
    rows = first.interactions.collect(engine="streaming").rows()
    assert rows == second.interactions.collect(engine="in-memory").rows()
    assert first.notes == second.notes
