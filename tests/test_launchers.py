"""Every launcher is a page that holds together: its settings are real, and those of the paper."""

import runpy

import pytest
from conftest import REPOSITORY

from adapter4rec.models.objectives import Objective
from Downstream.Text.model import TextTargetSettings
from Pretraining.Text.model import TextSourceSettings

PAGES = sorted(REPOSITORY.glob("*/Text/script/*.py"))
MIND = ("Dataset/MIND/mind_large_users_base.tsv", "Dataset/MIND/mind_large_news_base.tsv")
ADRESSA = ("Dataset/Adressa/Adressa_users_base.tsv", "Dataset/Adressa/Adressa_news_base.tsv")


def page(path):
    return runpy.run_path(str(path))["hyperparameters"]


def settings_of(name):
    (path,) = [path for path in PAGES if path.stem == name]
    kind = TextSourceSettings if "Pretraining" in path.parts else TextTargetSettings
    return kind.from_values(page(path))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: f"{path.parts[-4]}-{path.stem}")
def test_a_page_gives_settings_for_the_data_of_the_paper(path):
    settings = settings_of(path.stem)
    expected = MIND if "Pretraining" in path.parts else ADRESSA
    assert (str(settings.users), str(settings.items)) == expected
    assert settings.seed == 123456
    assert settings.precision == "auto"


def test_the_pages_are_there():
    assert {path.stem for path in PAGES if "Pretraining" in path.parts} == {
        "sm_base_sasrec",
        "sm_base_cpc",
        "sm_id",
    }
    assert {path.stem for path in PAGES if "Downstream" in path.parts} == {
        "adapter_houlsby",
        "finetune",
        "head",
        "frozen",
        "scratch",
        "id",
        "popularity",
    }


@pytest.mark.parametrize(("objective", "rest"), [("sasrec", 1e-4), ("cpc", 5e-6)])
def test_source_launchers_train_what_their_name_says(objective, rest):
    settings = settings_of(f"sm_base_{objective}")
    assert settings.objective is Objective(objective)
    assert (settings.epochs, settings.batch_size, settings.lr_backbone) == (60, 64, 5e-5)
    assert settings.lr_item_head == settings.lr_user_encoder == rest
    assert str(settings.export) == f"Downstream/Text/pretrained_models/sm_base_{objective}.safetensors"


@pytest.mark.parametrize("name", ["adapter_houlsby", "finetune", "head", "frozen"])
def test_target_launchers_start_from_the_exported_source(name):
    settings = settings_of(name)
    assert settings.method == name.removeprefix("adapter_")
    assert settings.source_checkpoint == settings_of("sm_base_sasrec").export


def test_released_settings_of_the_targets():
    houlsby, finetune = settings_of("adapter_houlsby"), settings_of("finetune")
    assert (houlsby.adapter.item_bottleneck, houlsby.adapter.user_bottleneck) == (64, 16)
    assert (houlsby.lr_adapter, houlsby.epochs, houlsby.batch_size) == (1.5e-4, 100, 32)
    assert (finetune.lr_backbone, finetune.lr_item_head, finetune.lr_user_encoder) == (5e-5, 5e-5, 1e-4)
    assert not settings_of("scratch").needs_source
    assert not settings_of("id").uses_content
