"""Reports: figures against hand-made ones, cells without runs, escaping, and what must never be in a page."""

import csv
import gzip
import io
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import rc_context
from PIL import Image
from report_study import failure, ranks_of, row, run_record, write_plan
from scipy.stats import ttest_1samp, ttest_rel

from adapter4rec.evaluation.metrics import RANKS_FILE
from adapter4rec.report import paper as paper_module
from adapter4rec.report.efficiency import tpme
from adapter4rec.report.paper import read_paper
from adapter4rec.report.plots import COLOURS, STYLE, plots_of
from adapter4rec.report.rendering import latex_text, markdown_text
from adapter4rec.report.results import StudyResults, read_studies, results
from adapter4rec.report.significance import NotComparableError, holm, interval, paired_ranks
from adapter4rec.report.tables import BEST, SECOND, comparison_table
from adapter4rec.report.writing import write_report
from adapter4rec.runs.ledger import read_ledger
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import REPOSITORY

REFERENCE = "full fine-tuning"
NONE_TRAINED = {"trained": 0, "total": 9, "share": 0}


@pytest.fixture(autouse=True)
def _no_paper(tmp_path, monkeypatch):
    monkeypatch.setattr(paper_module, "DEFAULT", tmp_path / "no_paper.csv")


def study_in(*ledgers):
    """The only study of some ledgers."""
    (study,) = read_studies(ledgers)
    return study


def table_of(*ledgers, paper=None):
    """The comparison table of the first section."""
    study = study_in(*ledgers)
    return comparison_table(study, study.sections[0], read_paper(paper, study)[0])


def text(table, name, column):
    return table.texts.loc[name, column]


def simple_study(folder, hits, **changes):
    """A study with a row for each name, whose runs have so many users of four at rank 1."""
    ledger = folder / "ledger.jsonl"
    rows = []
    for name, seeds in hits.items():
        keys = [f"{name}-{seed}" for seed in range(1, len(seeds) + 1)]
        for seed, (key, hit) in enumerate(zip(keys, seeds, strict=True), 1):
            ranks = np.where(np.arange(4) < hit, 1, 100)
            run_record(
                ledger, f"run {name} {seed}".replace("/", "_"), ranks, seed, key, **changes.get(name, {})
            )
        rows.append(row(name, keys))
    write_plan(folder, rows)
    return ledger


# Figures


def test_means_and_sample_deviations_over_the_seeds(tmp_path):
    table = table_of(simple_study(tmp_path, {REFERENCE: [1, 2, 4], "Houlsby": [2]}))
    assert text(table, REFERENCE, "HR@10 (%)") == "58.33 ± 38.19"  # of 25, 50, 100
    assert text(table, "Houlsby", "HR@10 (%)") == "50.00"
    assert text(table, "Houlsby", "relative (%)") == "−14.3"
    assert text(table, REFERENCE, "relative (%)") == "-"
    assert text(table, REFERENCE, "seeds") == "3/3"
    assert any("sample standard deviation" in note for note in table.notes)


def test_the_best_and_the_second_best_are_marked_and_ties_share_a_mark(tmp_path):
    table = table_of(simple_study(tmp_path, {"a": [3], "b": [3], REFERENCE: [2], "c": [1]}))
    assert list(table.marks["HR@10 (%)"].fillna(0)) == [BEST, BEST, SECOND, 0]


def test_a_single_row_is_not_marked(tmp_path):
    table = table_of(simple_study(tmp_path, {REFERENCE: [2]}))
    assert table.marks.isna().all(axis=None)


def test_tpme_by_hand():
    costs = pd.DataFrame(
        {"seconds": [100, 300, 200], "parameters": [1000, 3000, 1000], "memory": [5, 15, 15]}
    )
    found = tpme(costs, pd.Series(["", "", ""]))
    assert list(found) == pytest.approx([0, 100, 100 * (0.45 * 0.5 + 0 + 0.45)])
    costs = pd.DataFrame({"seconds": [1, 1, 9], "parameters": [5, 9, 9], "memory": [7, 7, 7]})
    found = tpme(costs, pd.Series(["a", "a", "b"]))
    assert list(found[:2]) == pytest.approx([0, 10])
    assert np.isnan(found[2])


def test_rows_that_train_nothing_have_no_tpme_and_do_not_shift_the_others(tmp_path):
    nothing = {
        "parameters": NONE_TRAINED,
        "seconds_per_epoch": None,
        "best_epoch": 0,
    }
    costly = {"seconds_per_epoch": 80.0, "peak_memory_bytes": 3000 * 2**20}
    ledger = simple_study(
        tmp_path,
        {"popularity": [1], "frozen": [1], "Houlsby": [2], REFERENCE: [3]},
        popularity=nothing | {"peak_memory_bytes": 2**20},
        frozen=nothing | {"seconds_per_epoch": 1.0},
        **{REFERENCE: costly},
    )
    table = table_of(ledger)
    assert [text(table, name, "TPME (%)") for name in ("popularity", "Houlsby", REFERENCE)] == [
        "-",
        "0.0",
        "90.0",
    ]
    assert text(table, "frozen", "TPME (%)") == "-"
    assert table.marks.loc["Houlsby", "TPME (%)"] == BEST  # the least
    assert text(table, "popularity", "s / epoch") == "-"
    assert text(table, REFERENCE, "peak memory (MiB)") == "3,000"


# Significance


def test_holm_by_hand():
    assert list(holm(pd.Series([0.01, 0.04, 0.03, 0.005]))) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert list(holm(pd.Series([0.9, 0.8]))) == [1.0, 1.0]
    assert holm(pd.Series([], dtype=float)).empty


def test_the_test_is_scipys_over_the_mean_of_common_seeds(tmp_path):
    ledger = tmp_path / "ledger.jsonl"
    ranks = {
        (REFERENCE, 1): ranks_of(30, 1),
        (REFERENCE, 2): ranks_of(30, 2),
        ("Houlsby", 1): ranks_of(20, 3),
        ("Houlsby", 2): ranks_of(20, 4),
        ("LoRA", 2): ranks_of(28, 5),
    }
    for (name, seed), some in ranks.items():
        run_record(ledger, f"{name} {seed}", some, seed, f"{name}-{seed}")
    write_plan(tmp_path, [row(n, [f"{n}-1", f"{n}-2"]) for n in (REFERENCE, "Houlsby", "LoRA")])
    (section,) = study_in(ledger).sections
    found = section.rows

    def gain(name, seed):
        some = ranks[name, seed]
        return np.where(some <= 10, 1 / np.log2(some + 1), 0)

    houlsby = ttest_rel(
        (gain("Houlsby", 1) + gain("Houlsby", 2)) / 2, (gain(REFERENCE, 1) + gain(REFERENCE, 2)) / 2
    ).pvalue
    lora = ttest_rel(gain("LoRA", 2), gain(REFERENCE, 2)).pvalue
    assert found.loc["Houlsby", "p"] == pytest.approx(houlsby)
    assert found.loc["LoRA", "p"] == pytest.approx(lora)
    assert found.loc["Houlsby", "corrected"] == pytest.approx(2 * houlsby)
    assert found.loc["LoRA", "corrected"] == pytest.approx(lora)
    assert np.isnan(found.loc[REFERENCE, "p"])
    table = table_of(ledger)
    assert houlsby < 0.025 < lora
    assert text(table, "Houlsby", "NDCG@10 (%)").endswith(" *")
    assert text(table, "LoRA", "NDCG@10 (%)").endswith(" (1 of 2)")
    (note,) = (note for note in table.notes if note.startswith("p: "))
    assert "paired t-test over users" in note
    assert "Holm" in note
    assert "n = 200 users, 2 comparisons" in note


def test_the_interval_of_one_seed_is_students_over_users_and_of_equal_users_over_seeds():
    draw = np.random.default_rng(1)
    of_users = draw.normal(1, 3, (50, 1))
    assert interval(of_users) == pytest.approx(
        tuple(ttest_1samp(of_users[:, 0], 0).confidence_interval(0.95))
    )
    of_seeds = draw.normal(1, 3, 4)
    expected = ttest_1samp(of_seeds, 0).confidence_interval(0.95)
    assert interval(np.tile(of_seeds, (50, 1))) == pytest.approx(tuple(expected))
    assert interval(np.full((5, 3), 2.0)) == (2.0, 2.0)
    assert np.isnan(interval(np.ones((1, 3)))).all()


def test_the_interval_contains_the_true_difference_in_95_of_100_draws_of_users_and_seeds():
    draw = np.random.default_rng(2)
    contains = []
    for _ in range(500):
        users, seeds, noise = draw.normal(0, 3, (80, 1)), draw.normal(0, 0.4, 3), draw.normal(0, 3, (80, 3))
        low, high = interval(1 + users + seeds + noise)
        contains.append(low <= 1 <= high)
    assert 0.93 <= np.mean(contains) <= 0.995


def test_the_difference_is_that_of_the_hits_of_common_seeds(tmp_path):
    table = table_of(simple_study(tmp_path, {REFERENCE: [3, 3, 4], "Houlsby": [2, 2]}))
    assert table.values.loc["Houlsby", "difference (points)"] == -25
    low, high = ttest_1samp([0, 0, -100, 0], 0).confidence_interval(0.95)  # both seeds have the same hits
    assert text(table, "Houlsby", "difference (points)") == f"−25.00 (−{-low:.2f} to +{high:.2f})"
    assert text(table, REFERENCE, "difference (points)") == "-"


def test_a_single_user_has_a_difference_without_an_interval(tmp_path):
    ledger = tmp_path / "ledger.jsonl"
    for name, rank in ((REFERENCE, 1), ("Houlsby", 100)):
        run_record(ledger, name, [rank])
    write_plan(tmp_path, [row(name, [name]) for name in (REFERENCE, "Houlsby")])
    assert text(table_of(ledger), "Houlsby", "difference (points)") == "−100.00"


def test_ranks_in_another_order_are_paired_by_user(tmp_path):
    ledger = simple_study(tmp_path, {REFERENCE: [3], "Houlsby": [3]})
    for name in (REFERENCE, "Houlsby"):
        path = tmp_path / f"run {name} 1" / "test_ranks.csv.gz"
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        if name == "Houlsby":
            lines[1:] = lines[:0:-1]
        path.write_bytes(gzip.compress("\n".join([*lines, ""]).encode()))
    assert text(table_of(ledger), "Houlsby", "p") == "1.000"


def continued(folder):
    """The ranks of a training that was continued after its record was written."""
    path = folder / "test_ranks.csv.gz"
    ranks = pd.read_csv(path)
    ranks.assign(rank=ranks["rank"] + 500).to_csv(path, index=False)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda folder: (folder / "test_ranks.csv.gz").unlink(), "not found"),
        (lambda folder: (folder / "test_ranks.csv.gz").write_bytes(b"no gzip"), "is damaged"),
        (continued, "is of another training"),
    ],
)
def test_without_ranks_there_is_no_test_and_a_note_says_why(tmp_path, damage, why):
    ledger = simple_study(tmp_path, {REFERENCE: [3], "Houlsby": [2]})
    damage(tmp_path / "run Houlsby 1")
    table = table_of(ledger)
    assert text(table, "Houlsby", "p") == "-"
    assert any(note.startswith("No test: run Houlsby 1") and why in note for note in table.notes)


def test_other_users_are_not_compared(tmp_path):
    ledger = simple_study(tmp_path, {REFERENCE: [3], "Houlsby": [2]})
    run_record(ledger, "run Houlsby 1", np.ones(5, int), 1, "Houlsby-1")
    assert any("tested on different users" in note for note in table_of(ledger).notes)


# What is not there


def test_cells_without_a_run_say_so(tmp_path):
    ledger = simple_study(tmp_path, {REFERENCE: [3], "Houlsby": [2, 2]})
    failure(ledger, "lora", "LoRA-1", exit_code=137)
    failure(ledger, "again", "again-1")
    run_record(ledger, "again", np.ones(4, int), 1, "again-1")  # at the second attempt
    planned = [("LoRA", ["LoRA-1"]), ("prompt", [None, "never"]), ("again", ["again-1"])]
    planned = [
        (REFERENCE, [f"{REFERENCE}-1"]),
        ("Houlsby", ["Houlsby-1", "Houlsby-2", "Houlsby-3"]),
        *planned,
    ]
    write_plan(tmp_path, [row(*one) for one in planned])
    table = table_of(ledger)
    assert text(table, "LoRA", "HR@10 (%)") == "failed (exit code 137)"
    assert text(table, "LoRA", "seeds") == "0/1"
    assert set(table.texts.loc["prompt"]) == {"not run", "-", "0/2"}
    assert text(table, "Houlsby", "HR@10 (%)").endswith(" (2 of 3)")
    assert text(table, "again", "HR@10 (%)") == "100.00"
    page = page_of(ledger)
    assert "not run: source model not trained yet" in page
    assert "python -m planned --seed 2" in page  # the command of a run that is still to come


def test_nothing_run_at_all(tmp_path):
    (tmp_path / "ledger.jsonl").write_text("")
    write_plan(tmp_path, [row(REFERENCE, ["a"]), row("Houlsby", [None])])
    page = page_of(tmp_path / "ledger.jsonl")
    assert "2 runs: 2 not run" in page
    assert "not run" in (tmp_path / "report" / "table.md").read_text()
    assert not list((tmp_path / "report").glob("*.png"))


def test_without_the_reference_a_note_says_so(tmp_path):
    table = table_of(simple_study(tmp_path, {"Houlsby": [1], "LoRA": [2]}))
    assert "No comparison: there is no row full fine-tuning." in table.notes


def test_the_rows_can_be_compared_with_another_one(tmp_path):
    ledger = simple_study(tmp_path, {REFERENCE: [3], "LoRA": [2], "head": [1]})
    write_report([ledger], reference="head")
    text = (tmp_path / "report" / "table.md").read_text()
    assert "against head" in text
    assert f"against {REFERENCE}" not in text
    with pytest.raises(UserError, match=rf"--reference Head: .* {REFERENCE}, LoRA, head"):
        write_report([ledger], reference="Head")


# Scales, groups, sections


def scale_study(folder, scales=(1.0, 10.0, 100.0)):
    ledger = folder / "ledger.jsonl"
    rows = []
    for number, name in enumerate((REFERENCE, "LoRA")):
        for scale in scales:
            key = f"{name}-{scale}"
            change = {"seconds_per_epoch": scale * (1 + number)}
            run_record(ledger, key, ranks_of(20 + scale / 5 + number, int(scale)), 1, key, **change)
            rows.append(row(name, [key], scale=scale))
    run_record(ledger, "popularity", ranks_of(60, 9), 1, "popularity", parameters=NONE_TRAINED)
    rows.append(row("popularity", ["popularity"]))
    write_plan(folder, rows, scale={"label": "users trained on (%)"})
    return ledger


def test_rows_are_compared_with_the_reference_of_their_scale(tmp_path):
    ledger = scale_study(tmp_path)
    (section,) = study_in(ledger).sections
    references = section.rows["reference"].fillna("")
    assert references["LoRA (10)"] == "full fine-tuning (10)"
    assert references["LoRA (100)"] == "full fine-tuning (100)"
    assert references["full fine-tuning (10)"] == references["popularity"] == ""
    table = table_of(ledger)
    for scale in (1, 10, 100):  # a best row each, though a row without scale is better than all
        names = [f"{name} ({scale})" for name in (REFERENCE, "LoRA")]
        assert BEST in set(table.marks.loc[names, "HR@10 (%)"])
    assert np.isnan(table.marks.loc["popularity", "HR@10 (%)"])
    assert [text(table, f"LoRA ({scale})", "TPME (%)") for scale in (1, 10, 100)] == ["45.0"] * 3
    assert table.values.loc["LoRA (10)", "users trained on (%)"] == 10


def test_pictures_of_a_scale_study(tmp_path):
    names = {path.name for path in write_report([scale_study(tmp_path)])}
    assert {"scale.png", "seconds.png", "curves.png"} <= names
    assert not {"memory.png", "parameters.png"} & names  # equal in all rows


def test_group_tables_where_a_study_asks_for_them(tmp_path):
    ledger = simple_study(tmp_path, {REFERENCE: [3, 4], "LoRA": [2]})
    write_report([ledger])
    assert "by target item" not in (tmp_path / "report" / "table.md").read_text()
    plan = json.loads((tmp_path / "study.json").read_text())
    (tmp_path / "study.json").write_text(json.dumps(plan | {"groups": True}))
    write_report([ledger])
    text = (tmp_path / "report" / "table.md").read_text()
    tables = dict(re.findall(r"### (.*?)\n\n(.*?)\n\n", text + "\n\n", flags=re.DOTALL))
    assert list(tables) == [
        f"{metric} (%) by {kind}"
        for kind in ("history length", "target item")
        for metric in ("HR@10", "NDCG@10")
    ]
    heads = [one.strip() for one in tables["HR@10 (%) by target item"].splitlines()[0].split("|")]
    assert heads[2:-1] == ["new (n = 1)", "rare (n = 3)"]
    assert " 83.33 ± 23.57 |" in tables["HR@10 (%) by target item"]  # 2 and 3 of the 3 rare ones


def test_each_section_has_its_own_table_and_tests(tmp_path):
    ledger = tmp_path / "ledger.jsonl"
    rows = []
    for section, users in (("SASRec", 100), ("CPC", 150)):
        for name in (REFERENCE, "LoRA"):
            key = f"{section} {name}"
            run_record(ledger, key, ranks_of(30, len(key), users), 1, key)
            rows.append(row(name, [key], section=section))
    write_plan(tmp_path, rows)
    files = write_report([ledger])
    text = (tmp_path / "report" / "table.md").read_text()
    assert re.findall(r"^## (.*)", text, re.MULTILINE) == ["SASRec", "CPC"]
    assert "n = 100 users, 1 comparison." in text
    assert "n = 150 users, 1 comparison." in text
    assert {"1-curves.png", "2-curves.png"} <= {path.name for path in files}
    assert "![Validation HR@10 over the epochs](2-curves.png)" in text


# Ledgers


def test_ledgers_of_one_study_are_merged(tmp_path):
    for number, machine in enumerate(("one", "two")):
        ledger = tmp_path / machine / "ledger.jsonl"
        mine, other = [REFERENCE, "LoRA"][:: 1 if number == 0 else -1]
        run_record(ledger, "mine", np.array([1, 1, 50]), 1, f"{mine}-{machine}")
        failure(ledger, "other", f"{other}-{machine}")
        keys = {name: [f"{name}-{machine}"] for name in (REFERENCE, "LoRA")}
        extra = [row("prompt", [None])] if number else []
        write_plan(ledger.parent, [*(row(name, key) for name, key in keys.items()), *extra])
    ledgers = [tmp_path / "one" / "ledger.jsonl", tmp_path / "two" / "ledger.jsonl"]
    table = table_of(*ledgers)
    assert list(table.texts.index) == [REFERENCE, "LoRA", "prompt"]
    assert [text(table, name, "seeds") for name in (REFERENCE, "LoRA", "prompt")] == [
        "1/1",
        "1/1",
        "0/1",
    ]
    assert text(table, "LoRA", "p") == "1.000"
    files = write_report(ledgers)
    assert {path.parent for path in files} == {tmp_path / "one" / "report"}


def test_several_studies_have_a_report_each(tmp_path):
    for name in ("study_a", "study_b"):
        simple_study(tmp_path / name, {REFERENCE: [1]})
        plan = json.loads((tmp_path / name / "study.json").read_text())
        (tmp_path / name / "study.json").write_text(json.dumps(plan | {"study": name}))
    ledgers = [tmp_path / name / "ledger.jsonl" for name in ("study_a", "study_b")]
    files = write_report(ledgers, into=tmp_path / "into")
    assert {tmp_path / "into" / name / f"{name}.html" for name in ("study_a", "study_b")} <= set(files)
    files = write_report(ledgers[:1], into=tmp_path / "into")
    assert tmp_path / "into" / "study_a.html" in files


def test_a_ledger_without_a_study(tmp_path):
    ledger = tmp_path / "ledger.jsonl"
    for seed in (1, 2):
        run_record(ledger, f"h{seed}", ranks_of(20, seed), seed)
        run_record(
            ledger, f"w{seed}", ranks_of(20, seed), seed, settings={"lr_adapter": 0.5, "threads": seed}
        )
        run_record(ledger, f"f{seed}", ranks_of(20, seed), seed, settings={"method": "finetune"})
    run_record(ledger, "s", ranks_of(20, 7), 1, settings={"method": "all"}, stage="text source")
    failure(ledger, "failed", "never", message="boom", method="lora")
    study = study_in(ledger)
    assert [section.name for section in study.sections] == [
        "text target, Instruments",
        "text source, Instruments",
    ]
    rows = study.sections[0].rows
    assert list(rows.index)[:3] == ["houlsby, lr_adapter 0.001", "houlsby, lr_adapter 0.5", "finetune"]
    assert rows.loc["houlsby, lr_adapter 0.5", "finished"] == 2
    assert len(rows) == 4
    assert [*table_of(ledger).texts][3] == "relative (%)"
    files = write_report([ledger])
    assert tmp_path / "report" / "ledger.html" in files


def test_a_run_continued_for_more_epochs_is_one_row(tmp_path):
    ledger = tmp_path / "ledger.jsonl"
    run_record(ledger, "f1", ranks_of(20, 1), 1, "short", settings={"method": "finetune"})
    run_record(ledger, "f1", ranks_of(30, 1), 1, "long", settings={"method": "finetune", "epochs": 9})
    (section,) = study_in(ledger).sections
    assert list(section.runs["key"]) == ["long"]
    assert list(section.rows.index) == ["finetune"]
    run_record(ledger, "f2", ranks_of(20, 3), 1, settings={"method": "finetune", "epochs": 3})
    (section,) = study_in(ledger).sections
    assert list(section.rows.index) == ["finetune, epochs 9", "finetune, epochs 3"]


def test_an_empty_ledger_has_no_report(tmp_path):
    (tmp_path / "ledger.jsonl").write_text("")
    with pytest.raises(UserError, match="no runs"):
        read_studies([tmp_path / "ledger.jsonl"])


def test_a_study_that_was_moved_finds_its_ranks(tmp_path):
    simple_study(tmp_path / "here", {REFERENCE: [3], "LoRA": [2]})
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert text(table_of(tmp_path / "there" / "ledger.jsonl"), "LoRA", "p") != "-"


# Figures of a paper


HEADER = "# a comment\nstudy,section,row,metric,value,note\n"


def paper_file(tmp_path, lines):
    path = tmp_path / "paper.csv"
    path.write_text(HEADER + lines)
    return path


def test_figures_of_a_paper_stand_beside_the_measured_ones(tmp_path):
    ledger = simple_study(tmp_path, {REFERENCE: [2], "LoRA": [3]})
    path = paper_file(
        tmp_path,
        'study_test,,LoRA,HR@10,70.5,"Table 2, Adressa"\nother_study,,unknown,HR@10,1,\n'
        "study_test,,LoRA,trained parameters,600000,\n",
    )
    table = table_of(ledger, paper=path)
    assert text(table, "LoRA", "HR@10, paper") == "70.50"
    assert text(table, REFERENCE, "HR@10, paper") == "-"
    assert "NDCG@10, paper" not in [*table.texts]
    assert text(table, "LoRA", "HR@10, difference") == "+4.50"
    assert text(table, REFERENCE, "HR@10, difference") == "-"
    assert text(table, "LoRA", "trained parameters, paper") == "600,000"
    write_report([ledger], paper=path)
    (line,) = (one for one in read_csv(tmp_path) if one["row"] == "LoRA")
    assert float(line["HR@10, paper"]) == 70.5


def test_a_figure_of_a_row_that_the_study_lacks_is_left_out_with_a_warning(tmp_path, capsys):
    ledger = simple_study(tmp_path, {REFERENCE: [2], "Houlsby": [3]})
    path = paper_file(tmp_path, "study_test,,Houlsbi,HR@10,5,\nstudy_test,CPC,Houlsby,HR@10,5,\n")
    write_report([ledger], paper=path)
    warnings = capsys.readouterr().err
    assert "paper.csv:3: ignored: the study has no row 'Houlsbi'; did you mean 'Houlsby'?" in warnings
    assert "paper.csv:4: ignored: the study has no section 'CPC'" in warnings
    assert "the study has no row &#39;Houlsbi&#39;" in (tmp_path / "report" / "study_test.html").read_text()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("study_test,,LoRA,HR@10,five,", r"paper.csv:3: invalid value 'five'"),
        ("study_test,,LoRA,HR@10,nan,", r"paper.csv:3: invalid value 'nan'"),
        ("\nstudy_test,,LoRA,HT@10,5,", r"paper.csv:4: unknown metric 'HT@10'; did you mean 'HR@10'\?"),
        ("study_test,,LoRA,HR@10,5,\nstudy_test,,LoRA,HR@10,6,", r"paper.csv:4: duplicate"),
        ("study_test,SASRec, MiniLM,LoRA,HR@10,5,", r"paper.csv:3: expected 6 columns"),
    ],
)
def test_lines_that_cannot_be_understood_end_the_report(tmp_path, lines, message):
    ledger = simple_study(tmp_path, {REFERENCE: [2], "LoRA": [3]})
    with pytest.raises(UserError, match=message):
        write_report([ledger], paper=paper_file(tmp_path, lines))
    assert not (tmp_path / "report").exists()


def test_the_shipped_file_explains_its_columns_and_holds_no_figures():
    lines = (REPOSITORY / "Dataset" / "paper_results.csv").read_text("utf-8").splitlines()
    (header,) = (line for line in lines if not line.startswith("#"))
    for name in header.split(","):
        assert any(line.startswith(f"# {name} ") for line in lines)


# Files


def page_of(ledger):
    page, *_ = write_report([ledger])
    return page.read_text("utf-8")


def read_csv(folder):
    with (folder / "report" / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


AWKWARD = "<script>alert(1)</script> & 100 % of_it | `x` $y$ #1 {z} \\a ~ ^"


def awkward_study(folder):
    ledger = simple_study(folder, {REFERENCE: [3], AWKWARD: [2], "_low": [1]})
    plan = json.loads((folder / "study.json").read_text())
    plan |= {"title": f"Title {AWKWARD}", "about": AWKWARD, "command": f"python study.py '{AWKWARD}'"}
    (folder / "study.json").write_text(json.dumps(plan))
    return ledger


class Tags(HTMLParser):
    """Collects what is open at the end, ids, and what attributes refer to."""

    VOID = ("meta", "img")

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.references, self.loads = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.open += [tag] if tag not in self.VOID else []
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        self.references += [found["href"]] if "href" in found else []
        self.loads += [found[name] for name in ("src", "srcset", "action") if name in found]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_names_nothing_outside_of_itself(tmp_path):
    page = page_of(awkward_study(tmp_path))
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert len(set(tags.ids)) == len(tags.ids)
    assert set(tags.references) <= {f"#{name}" for name in tags.ids}
    assert all(source.startswith("data:image/svg+xml;base64,") for source in tags.loads)
    assert not re.search(r"https?:|@import|<link|url\(", page)
    assert len(tags.loads) == len(list((tmp_path / "report").glob("*.png"))) == 1  # all cost the same


def test_all_that_users_wrote_is_escaped(tmp_path):
    page = page_of(awkward_study(tmp_path))
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; 100 % of_it" in page
    assert page.count("<script>") == 1
    text = (tmp_path / "report" / "table.md").read_text()
    (line,) = (one for one in text.splitlines() if one.startswith("| &lt;script"))
    columns = len(text.splitlines()[4].split("|"))
    assert len(re.split(r"(?<!\\)\|", line)) == columns


def test_texts_for_latex_and_markdown():
    assert latex_text("50 % & a_b #1 {x} <y> ± −3") == r"50 \% \& a\_b \#1 \{x\} $<$y$>$ $\pm$ $-$3"
    assert latex_text("\\") == r"\textbackslash{}"
    assert markdown_text("a_b *c* <d> | e\nf") == r"a\_b \*c\* &lt;d&gt; \| e f"


def test_the_latex_tables(tmp_path):
    write_report([awkward_study(tmp_path)])
    text = (tmp_path / "report" / "table.tex").read_text()
    for one in ("table", "tabular"):
        assert text.count(rf"\begin{{{one}}}") == text.count(rf"\end{{{one}}}") == 2
    for one in ("toprule", "midrule", "bottomrule", "caption", "label"):
        assert text.count(rf"\{one}") == 2
    assert r"\textbf{75.00}" in text
    assert r"\underline{50.00}" in text
    assert "\nrow &" not in text  # pandas' line for the name of the index
    for columns, body in re.findall(r"\\begin{tabular}{@{}(lr*)@{}}(.*?)\\end{tabular}", text, re.DOTALL):
        for line in re.findall(r"^(.*) \\\\$", body, re.MULTILINE):
            assert len(re.split(r"(?<!\\)&", line)) == len(columns)
    assert text.replace(r"\%", "").replace("% study_test", "").count("%") == 0
    labels = re.findall(r"\\label{(.*?)}", text)
    assert labels == ["tab:study-test-1-1", "tab:study-test-1-2"]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_the_latex_tables_compile(tmp_path):
    ledger = awkward_study(tmp_path)
    plan = json.loads((tmp_path / "study.json").read_text())
    plan["rows"].append(row("not yet", [None]))
    (tmp_path / "study.json").write_text(json.dumps(plan))
    write_report([ledger])
    document = (
        r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{report/table}\end{document}"
    )
    (tmp_path / "document.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "document.tex"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert found.returncode == 0, found.stdout.decode(errors="replace")[-2000:]


def test_the_markdown_table(tmp_path):
    write_report([simple_study(tmp_path, {REFERENCE: [3], "LoRA": [2], "head": [1]})])
    text = (tmp_path / "report" / "table.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(line.split("|")) for line in lines}) == 1
    assert "**75.00**" in text
    assert "<ins>50.00</ins>" in text
    assert "What it shows.\n\nAnd more." in text


def test_the_csv_has_full_precision_and_empty_cells(tmp_path):
    ledger = simple_study(tmp_path, {REFERENCE: [1, 2, 4], "LoRA": [2]})
    plan = json.loads((tmp_path / "study.json").read_text())
    plan["rows"].append(row("prompt", [None]))
    (tmp_path / "study.json").write_text(json.dumps(plan))
    write_report([ledger])
    reference, lora, prompt = read_csv(tmp_path)
    assert float(reference["test.HR@10"]) == pytest.approx(100 * 7 / 12)
    assert float(reference["test.HR@10 deviation"]) == pytest.approx(np.std([25, 50, 100], ddof=1))
    assert lora["test.HR@10 deviation"] == ""
    assert float(lora["test.coverage@10"]) == 12.5
    assert (lora["reference"], float(lora["users"])) == (REFERENCE, 4)
    assert 0 < float(lora["p"]) == float(lora["corrected"]) <= 1
    assert (prompt["state"], prompt["test.HR@10"], prompt["p"]) == ("not run", "", "")


def test_the_page_says_what_stands_behind_the_rows(tmp_path):
    ledger = simple_study(
        tmp_path,
        {REFERENCE: [3], "LoRA": [2]},
        LoRA={"settings": {"method": "lora", "lr_adapter": 0.25}, "command": "python -m lora & more"},
    )
    failure(ledger, "failed", "head-1", message="CUDA <error>\nline two", exit_code=3)
    plan = json.loads((tmp_path / "study.json").read_text())
    plan["rows"].append(row("head", ["head-1"]))
    (tmp_path / "study.json").write_text(json.dumps(plan))
    page = page_of(ledger)
    shared = page.partition('<section id="settings">')[2].partition("</section>")[0]
    assert "<dt>users</dt><dd>data/Instruments/users.tsv</dd>" in shared
    assert "lr_adapter" not in shared
    assert "seed" not in shared
    assert "<dt>lr_adapter</dt><dd>0.25</dd>" in page
    assert "<pre><code>python -m lora &amp; more</code></pre>" in page
    assert "head, seed 1: exit code 3" in page
    assert "CUDA &lt;error&gt;\nline two" in page
    assert "0123456789ab" in page
    assert "x86_64" in page
    assert "2.14.1" in page
    assert "3 runs: 2 finished, 1 failed" in page
    assert 'data-value="50"' in page
    assert "python study_test.py --sample" in page


def test_pictures_are_the_same_each_time(tmp_path):
    ledger = simple_study(tmp_path, {REFERENCE: [3], "LoRA": [2]})
    first, second = (re.findall(r"data:image/svg[^\"]*", page_of(ledger)) for _ in range(2))
    assert first == second


def luminance(colour):
    parts = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_colours_can_be_seen_on_white():
    for colour in COLOURS:
        assert 1.05 / (luminance(colour) + 0.05) >= 3, colour


def test_a_legend_names_each_series_once_and_grows_with_them(tmp_path):
    heights = []
    for rows in (2, 30):
        hits = {f"adapter of family {number}": [number % 4] for number in range(rows)}
        changes = {name: {"seconds_per_epoch": float(n + 1)} for n, name in enumerate(hits)}
        study = study_in(simple_study(tmp_path / str(rows), hits, **changes))
        with rc_context(STYLE):
            figure = plots_of(study, study.sections[0])["seconds"]
        (legend,) = figure.legends
        assert [one.get_text() for one in legend.get_texts()] == list(hits)
        heights.append(figure.get_figheight())
    assert heights[0] < heights[1]


# The command line


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "adapter4rec.report", *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_prints_the_table_and_the_files(tmp_path):
    found = command(simple_study(tmp_path, {REFERENCE: [3], "LoRA": [2]}), "--into", tmp_path / "into")
    assert found.returncode == 0, found.stderr
    assert "**75.00**" in found.stdout
    assert f"written: {tmp_path / 'into' / 'study_test.html'}" in found.stdout


def test_a_report_needs_neither_torch_nor_transformers(tmp_path):
    """They take seconds to import, and a machine that only reports need not have them."""
    ledger = simple_study(tmp_path, {REFERENCE: [3], "LoRA": [2]})
    program = f"""
import runpy, sys
sys.argv = ["report", {str(ledger)!r}]
try:
    runpy.run_module("adapter4rec.report", run_name="__main__")
except SystemExit as ended:
    assert not ended.code
print("imported:", {{"torch", "transformers"}} & set(sys.modules))
"""
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    assert "**75.00**" in found.stdout
    assert found.stdout.endswith("imported: set()\n")


def test_bad_input_ends_the_command_without_a_traceback(tmp_path):
    found = command(tmp_path / "none.jsonl")
    assert (found.returncode, found.stderr.count("\n")) == (2, 1)
    assert "no such ledger" in found.stderr


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda plan: "{", "damaged"),
        (lambda plan: plan.pop("rows") and json.dumps(plan), "required field `rows`"),
        (lambda plan: plan["rows"][0].pop("scale") or json.dumps(plan), "required field `scale`"),
        (lambda plan: plan["rows"][0]["runs"][0].pop("key") and json.dumps(plan), "required field `key`"),
    ],
)
def test_a_damaged_study_is_named(tmp_path, damage, message):
    ledger = simple_study(tmp_path, {REFERENCE: [3]})
    path = tmp_path / "study.json"
    path.write_text(damage(json.loads(path.read_text())))
    with pytest.raises(UserError, match=re.escape(str(path))) as found:
        write_report([ledger])
    assert message in str(found.value)


def test_plots_show_names_that_are_long_or_no_unicode(tmp_path):
    """A path in the name of a row may be no UTF-8. A text of 100,000 letters takes minutes to draw."""
    ledger = simple_study(tmp_path, {REFERENCE: [3], "LoRA": [2]})
    plan = json.loads((tmp_path / "study.json").read_text())
    for planned, name in zip(plan["rows"], ("\udce9", "x" * 100_000), strict=True):
        planned["name"] = name
    (tmp_path / "study.json").write_text(json.dumps(plan))
    study = study_in(ledger)
    with rc_context(STYLE):
        figures = plots_of(study, study.sections[0])
        for figure in figures.values():
            figure.savefig(io.BytesIO(), format="png")
    names = {text.get_text() for figure in figures.values() for one in figure.legends for text in one.texts}
    assert min(names) == "\\udce9"
    assert 100 < len(max(names)) < 200


def test_no_figures_are_looked_for_where_the_file_is_not_there(tmp_path):
    study = study_in(simple_study(tmp_path, {REFERENCE: [3]}))
    assert read_paper(None, study) == ({}, [])
    with pytest.raises(UserError, match="no such file"):
        read_paper(tmp_path / "none.csv", study)


def test_the_page_shows_recommendations_of_the_best_run_that_has_them(tmp_path):
    ledger = simple_study(tmp_path, {"one": [1], "two": [2], "three": [3]})
    records = sorted(read_ledger(ledger), key=lambda record: record["test"]["HR@10"])
    for record in records[:2]:
        Image.new("RGB", (4, 4), "red").save(Path(record["folder"]) / "recommendations.png")
    (page,) = [path for path in write_report([ledger]) if path.suffix == ".html"]
    text_of_page = page.read_text(encoding="utf-8")
    assert "Example recommendations: two" in text_of_page
    assert text_of_page.count("data:image/png;base64,") == 1


def test_runs_on_other_data_are_rows_of_their_own(tmp_path):
    ledger = tmp_path / "ledger.jsonl"
    for name, data, seed in (("monday", "aaaa", 1), ("tuesday", "bbbb", 1), ("again", "bbbb", 2)):
        run_record(ledger, name, ranks_of(8, seed), seed, data=data)
    assert sorted(results(ledger)["run"]) == ["houlsby, data aaaa", *["houlsby, data bbbb"] * 2]


def test_a_table_for_a_notebook_needs_a_finished_run(tmp_path):
    failure(tmp_path / "ledger.jsonl", "lora", "LoRA-1")
    with pytest.raises(UserError, match=r"ledger\.jsonl: no run has finished"):
        results(tmp_path / "ledger.jsonl")


def test_runs_with_other_vectors_or_resizing_are_rows_of_their_own(tmp_path):
    ledger = tmp_path / "ledger.jsonl"
    for vectors in ("a.npy", "b.npy"):
        for seed in (1, 2):
            settings = {"method": "head", "item_vectors": vectors}
            identity = {"method": "head"}  # the path of the vectors is a runtime option
            run_record(
                ledger, f"{vectors}{seed}", ranks_of(8, seed), seed, settings=settings, identity=identity
            )
    assert results(ledger)["run"].value_counts().to_dict() == {
        "head, item_vectors a.npy": 2,
        "head, item_vectors b.npy": 2,
    }


def test_other_targets_of_the_same_users_are_not_compared(tmp_path):
    for name, target in (("one", "x"), ("two", "y")):
        (tmp_path / name).mkdir()
        table = pd.DataFrame({"user": ["u", "v"], "target": target, "rank": [1, 20]})
        table.to_csv(tmp_path / name / RANKS_FILE, index=False)
    runs = pd.DataFrame({"row": ["one", "two"], "seed": 1, "test.HR@10": 50.0})
    runs["folder"] = [str(tmp_path / name) for name in runs["row"]]
    with pytest.raises(NotComparableError, match="different users or targets"):
        paired_ranks(runs, "one", "two", 10)


def test_figures_of_the_paper_in_another_encoding_are_named(tmp_path):
    path = tmp_path / "paper.csv"
    path.write_bytes(b"study,section,row,metric,value,note\nx,,a,HR@10,1,Table 2 \x96 a\n")
    with pytest.raises(UserError, match=r"paper\.csv: not in UTF-8"):
        read_paper(path, StudyResults(None, tmp_path, pd.DataFrame({"section": []})))
