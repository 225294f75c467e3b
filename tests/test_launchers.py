"""Every launcher is a page that holds together: its settings are real, and those of the paper."""

import runpy
from types import SimpleNamespace

import pytest
from conftest import REPOSITORY
from trees import ImageSourceSettings, ImageTargetSettings, TextSourceSettings, TextTargetSettings

from adapter4rec.checkpoints.settings import WITHOUT_MODEL
from adapter4rec.models.layouts import Reads

TREES = ("Pretraining/Text", "Pretraining/CV", "Downstream/Text", "Downstream/CV")
PAGES = [path for tree in TREES for path in sorted((REPOSITORY / tree / "script").glob("*.py"))]
PAGES = [path for path in PAGES if not path.stem.startswith("study_")]
DATA = {
    "Pretraining/Text": ("Dataset/MIND/mind_large_users_base.tsv", "Dataset/MIND/mind_large_news_base.tsv"),
    "Downstream/Text": ("Dataset/Adressa/Adressa_users_base.tsv", "Dataset/Adressa/Adressa_news_base.tsv"),
    "Pretraining/CV": ("Dataset/HM/hm_50w_users.tsv", "Dataset/HM/hm_50w_items.tsv"),
    "Downstream/CV": ("Dataset/Amazon/amazon_2w_users.tsv", "Dataset/Amazon/amazon_2w_items.tsv"),
}
KINDS = {
    "Pretraining/Text": TextSourceSettings,
    "Downstream/Text": TextTargetSettings,
    "Pretraining/CV": ImageSourceSettings,
    "Downstream/CV": ImageTargetSettings,
}

ADAPTERS = {
    "houlsby": "adapter_houlsby",
    "houlsby_parallel": "adapter_houlsby_parallel",
    "pfeiffer": "adapter_pfeiffer",
    "k_adapter": "adapter_kadapter",
    "lora": "adapter_lora",
    "compacter": "adapter_compacter",
    "prompt": "adapter_prompt",
    "bitfit": "bitfit",
    "layernorm": "layernorm",
}
"""Launchers of the families that both modalities have."""


def tree_of(path):
    return "/".join(path.parts[-4:-2])


def settings_of(tree, name):
    page = runpy.run_path(str(REPOSITORY / tree / "script" / f"{name}.py"))
    return KINDS[tree].from_values(page["hyperparameters"])


@pytest.mark.parametrize("path", PAGES, ids=lambda path: f"{tree_of(path)}/{path.stem}")
def test_a_page_gives_settings_for_the_data_of_the_paper(path):
    tree = tree_of(path)
    settings = settings_of(tree, path.stem)
    assert (str(settings.users), str(settings.items)) == DATA[tree]
    assert settings.precision == "auto"
    is_text = tree.endswith("Text")
    assert settings.max_seq_len == (20 if is_text else 10)
    if settings.method not in WITHOUT_MODEL:
        assert settings.seed == (123456 if is_text else 12345)
    if not is_text and settings.uses_content:
        folder = str(settings.users.parent)
        name = {"Dataset/HM": "hm_50w_images.lmdb", "Dataset/Amazon": "amazon_images.lmdb"}[folder]
        assert str(settings.images) == f"{folder}/{name}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: f"{tree_of(path)}/{path.stem}")
def test_a_page_runs_the_module_of_its_tree(path):
    text = path.read_text(encoding="utf-8")
    tree = tree_of(path)
    assert f'launch("{tree.replace("/", ".")}.train", hyperparameters)' in text
    assert (REPOSITORY / tree / "train.py").is_file()


def test_the_pages_are_there():
    targets = {
        "finetune",
        "head",
        "frozen",
        "scratch",
        "id",
        "popularity",
        "item_knn",
        "adapter_peft",
        *ADAPTERS.values(),
    }
    assert {(tree_of(path), path.stem) for path in PAGES} == {
        *(("Pretraining/Text", name) for name in ("sm_base_sasrec", "sm_base_cpc", "sm_id")),
        *(
            ("Pretraining/CV", name)
            for name in ("sm_vit_sasrec", "sm_vit_cpc", "sm_mae_sasrec", "sm_mae_cpc", "sm_id")
        ),
        *((tree, name) for tree in ("Downstream/Text", "Downstream/CV") for name in targets),
        ("Downstream/Text", "adapter_pfeiffer_after_layernorm"),
    }


@pytest.mark.parametrize(("objective", "rest"), [("sasrec", 1e-4), ("cpc", 5e-6)])
def test_text_source_launchers_train_what_their_name_says(objective, rest):
    settings = settings_of("Pretraining/Text", f"sm_base_{objective}")
    assert settings.objective == objective
    assert (settings.epochs, settings.batch_size, settings.lr_backbone) == (60, 64, 5e-5)
    assert settings.lr_item_head == settings.lr_user_encoder == rest
    assert str(settings.export) == f"Downstream/Text/pretrained_models/sm_base_{objective}.safetensors"


@pytest.mark.parametrize("objective", ["sasrec", "cpc"])
@pytest.mark.parametrize(("encoder", "backbone"), [("vit", "vit-base-patch16-224"), ("mae", "vit-mae-base")])
def test_image_source_launchers_train_what_their_name_says(encoder, backbone, objective):
    settings = settings_of("Pretraining/CV", f"sm_{encoder}_{objective}")
    assert settings.objective == objective
    assert settings.backbone == backbone
    assert not settings.release_masking
    assert (settings.epochs, settings.batch_size, settings.lr_backbone) == (60, 32, 1e-4)
    assert settings.lr_item_head == settings.lr_user_encoder == 2e-4
    assert str(settings.export) == f"Downstream/CV/pretrained_models/sm_{encoder}_{objective}.safetensors"


@pytest.mark.parametrize("name", ["adapter_houlsby", "finetune", "head", "frozen"])
@pytest.mark.parametrize(("modality", "source"), [("Text", "sm_base_sasrec"), ("CV", "sm_vit_sasrec")])
def test_target_launchers_start_from_the_exported_source(modality, source, name):
    settings = settings_of(f"Downstream/{modality}", name)
    assert settings.method == name.removeprefix("adapter_")
    exported = settings_of(f"Pretraining/{modality}", source)
    assert settings.source_checkpoint == exported.export
    assert (settings.backbone, settings.objective) == (exported.backbone, exported.objective)


def bottlenecks(config, width, user_width=64):
    """Inner widths in an item encoder and a user encoder of these widths."""
    widths = {"item": width, "user": user_width}
    return tuple(config.bottleneck_of(SimpleNamespace(role=role, width=widths[role])) for role in widths)


@pytest.mark.parametrize("tree", ["Downstream/Text", "Downstream/CV"])
def test_released_settings_of_the_targets(tree):
    houlsby, finetune = settings_of(tree, "adapter_houlsby"), settings_of(tree, "finetune")
    assert bottlenecks(houlsby.adapter, 768) == (64, 16)
    assert (houlsby.epochs, houlsby.batch_size) == (100, 32)
    assert houlsby.lr_adapter == (1.5e-4 if tree == "Downstream/Text" else 4e-4)
    rates = (finetune.lr_backbone, finetune.lr_item_head, finetune.lr_user_encoder)
    assert rates == ((5e-5, 5e-5, 1e-4) if tree == "Downstream/Text" else (1e-4, 2e-4, 2e-4))
    assert finetune.epochs == (100 if tree == "Downstream/Text" else 150)
    assert not settings_of(tree, "scratch").needs_source
    assert not settings_of(tree, "id").uses_content


RATES = {
    ("Text", "houlsby"): {"adapter": 1.5e-4},
    ("Text", "houlsby_parallel"): {"adapter": 1.5e-4},
    ("Text", "pfeiffer"): {"adapter": 1e-4, "item_layer_norms": 5e-5, "user_layer_norms": 1e-4},
    ("Text", "k_adapter"): {"adapter": 5e-6, "item_join": 5e-5, "user_join": 1e-4},
    ("Text", "lora"): {"adapter": 1e-3},
    ("Text", "compacter"): {
        "adapter": 4e-3,
        "shared": 1e-4,
        "item_layer_norms": 5e-5,
        "user_layer_norms": 1e-4,
    },
    ("Text", "prompt"): {"adapter": 5e-5},
    ("CV", "houlsby"): {"adapter": 4e-4},
    ("CV", "houlsby_parallel"): {"adapter": 4e-4},
    ("CV", "pfeiffer"): {"adapter": 4e-4},
    ("CV", "k_adapter"): {"adapter": 1.5e-5, "item_join": 1e-4, "user_join": 2e-4},
    ("CV", "lora"): {"adapter": 1e-3},
    ("CV", "compacter"): {"adapter": 3e-3, "shared": 2e-4},
    ("CV", "prompt"): {"adapter": 2e-4, "adapted_head": 2e-4},
}


@pytest.mark.parametrize(("modality", "family"), RATES)
def test_adapters_have_the_released_rates(modality, family):
    settings = settings_of(f"Downstream/{modality}", ADAPTERS[family])
    assert settings.method == family
    rates = settings.learning_rates()
    expected = RATES[modality, family]
    assert {part: rates[part] for part in expected} == expected
    assert settings.adapter.train_layer_norms == ("item_layer_norms" in expected)
    assert settings.adapter.train_head == ("adapted_head" in expected)


@pytest.mark.parametrize("modality", ["Text", "CV"])
def test_adapters_have_the_released_sizes(modality):
    def adapter(family):
        return settings_of(f"Downstream/{modality}", ADAPTERS[family]).adapter

    is_text = modality == "Text"
    for family in ("houlsby", "houlsby_parallel", "pfeiffer", "compacter"):
        assert bottlenecks(adapter(family), 768) == (64, 16)
        assert bottlenecks(adapter(family), 64) == (4, 16)  # not the 64 of a backbone of width 768
        assert bottlenecks(adapter(family), 1024, 512) == (84, 128)
        assert bottlenecks(adapter(family), 8, 8) == (4, 4)
    assert (adapter("lora").item_rank, adapter("lora").user_rank) == (12, 4)
    chain = adapter("k_adapter")
    reads = {"item": Reads.WORDS if is_text else Reads.PATCHES, "user": Reads.ITEMS}
    inner = {
        (role, width): chain.sizes_of(
            SimpleNamespace(role=role, width=width, layout=SimpleNamespace(reads=reads[role]))
        )
        for role, width in (("item", 768), ("user", 64), ("user", 512), ("user", 4), ("user", 2))
    }
    assert inner["item", 768] == ((192, 12) if is_text else (384, 12))
    assert (inner["user", 64], inner["user", 512]) == ((16, 2), (128, 2))
    assert (inner["user", 4], inner["user", 2]) == ((1, 1), (1, 1))
    assert chain.item_layers == "ends"
    assert adapter("prompt").prompt_tokens == (30 if is_text else 10)
