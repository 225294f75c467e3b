"""Raw files of public data sets that are damaged, or no files: they are prepared or refused."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
import test_datasets_adressa as adressa
import test_datasets_amazon as amazon
import test_datasets_hm as hm
import test_datasets_iisan as iisan
import test_datasets_microlens as microlens
import test_datasets_mind as mind
import test_datasets_movielens as movielens
import test_datasets_ninerec as ninerec
import test_datasets_recbole as recbole
from faults.damage import damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_files import write

from adapter4rec.datasets.options import PrepareSettings
from adapter4rec.datasets.preparing import prepare_domain
from adapter4rec.datasets.sources import SOURCES
from adapter4rec.utils.errors import UserError

MIND = {"behaviors.tsv": mind.TRAIN, "news.tsv": mind.TRAIN_NEWS}
RAW = {
    "mind": {
        **{f"MINDlarge_train/{name}": lines for name, lines in MIND.items()},
        "MINDlarge_dev/behaviors.tsv": mind.DEV,
        "MINDlarge_dev/news.tsv": mind.TRAIN_NEWS[:3],
    },
    "adressa": {"one_week/20170101": adressa.FIRST, "one_week/20170102": adressa.SECOND},
    "hm": {"transactions_train.csv": hm.TRANSACTIONS, "articles.csv": hm.ARTICLES},
    "amazon": {
        "reviews_Clothing_5.json.gz": [amazon.review_2014(*row) for row in amazon.REVIEWS],
        "meta_Clothing.json": amazon.META_2014,
    },
    "movielens": {"ml-100k/u.data": movielens.U_DATA, "ml-100k/u.item": movielens.U_ITEM},
    "microlens": {
        "MicroLens-50k_pairs.csv": microlens.PAIRS,
        "MicroLens-50k_titles.csv": ("item,title", *microlens.TITLES),
    },
    "ninerec": {"Bili_Food_item.csv": ninerec.ITEMS, "Bili_Food_pair.csv": ninerec.USER_FIRST},
    "recbole": {"ml-100k.inter": recbole.INTER, "ml-100k.item": recbole.ITEM},
    **{
        name: {f"{folder}/{users}.tsv": iisan.USERS, f"{folder}/{items}.tsv": iisan.ITEMS}
        for name, (folder, users, items, _) in iisan.FILES.items()
    },
    "paper": {"users.tsv": ("U1\tN1 N2\t100 90", "U2\tN1\t5"), "items.tsv": ("N1\tOne", "N2\tTwo")},
}
FILES = [(name, file) for name, files in RAW.items() for file in files]
pytestmark = pytest.mark.usefixtures("no_hang")


def written(folder: Path, name: str) -> Path:
    for file, lines in RAW[name].items():
        write(folder / file, *lines)
    return folder


def prepare(name: str, folder: Path) -> None:
    with TemporaryDirectory() as into:
        prepare_domain(
            SOURCES[name].read(folder), PrepareSettings(), Path(into, "d"), name=name, log=lambda _: None
        )


def test_every_data_set_is_here():
    assert RAW.keys() == SOURCES.keys()


@pytest.mark.parametrize("name", RAW)
def test_whole_files_are_prepared(name: str, tmp_path: Path):
    prepare(name, written(tmp_path, name))


@pytest.mark.parametrize(("name", "file"), FILES)
@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(chance=st.randoms(use_true_random=False))
def test_a_damaged_file_is_prepared_or_refused(name: str, file: str, tmp_path: Path, chance: Random):
    path = written(tmp_path, name) / file
    path.write_bytes(damaged(chance, path.read_bytes()))
    try:
        prepare(name, tmp_path)
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(("name", "file"), FILES)
def test_a_fifo_is_named(name: str, file: str, tmp_path: Path):
    path = written(tmp_path, name) / file
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=path.name):
        prepare(name, tmp_path)
