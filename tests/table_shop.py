"""What the tests of any table share: files of a small shop, prepared, and what was written."""

from __future__ import annotations

import pytest

from adapter4rec.datasets.command import prepare


def written(folder):
    users, items = (folder / name for name in ("users.tsv", "items.tsv"))
    return users.read_text("utf-8").splitlines(), items.read_text("utf-8").splitlines()


def run(tmp_path, *options, into="out"):
    prepare(["table", *options, "--into", str(tmp_path / into)])
    return tmp_path / into


@pytest.fixture
def shop(tmp_path):
    """A function that writes clicks and items as CSV and prepares them."""

    def make(clicks, items=None, *options, columns=("--time", "time"), into="out"):
        (tmp_path / "clicks.csv").write_text(clicks, "utf-8")
        files = ["--interactions", str(tmp_path / "clicks.csv")]
        if items is not None:
            (tmp_path / "items.csv").write_text(items, "utf-8")
            files += ["--items", str(tmp_path / "items.csv"), "--title", "title"]
        return run(tmp_path, *files, *columns, *options, into=into)

    return make
