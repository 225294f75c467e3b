"""All adapters, in both semantics, beside a second implementation that is written plainly."""

import parity
import plain_transrec as plain
import pytest
import torch
from test_adapter_families import SMALL
from test_released import CASES, golden

ADAPTERS = [name for name in SMALL if name not in ("bitfit", "layernorm", "peft")]
PLAIN = [
    (backbone, adapter, semantics)
    for backbone, (modality, _) in plain.BACKBONES.items()
    for adapter in ("none", *ADAPTERS)
    for semantics in ("paper", "release")
    if not (adapter == "pfeiffer_after_layernorm" and modality == "image")
]
OTHER_SIZES = {
    "embedding_dim": 24,
    "user_heads": 3,
    "user_layers": 3,
    "item_bottleneck": 6,
    "user_bottleneck": 12,
    "k_adapter_layers": [1],
    "k_adapter_hidden": 10,
    "k_adapter_item_heads": 2,
    "k_adapter_user_heads": 4,
    "n_tokens": 5,
    "hypercomplex_division": 2,
}


@pytest.mark.parametrize("what", PLAIN, ids="-".join)
def test_a_plain_implementation_agrees(what):
    """Embeddings, loss and all gradients, on every backbone that has released names."""
    case = plain.case_of(*what)
    matches, line = parity.verdict(case)
    assert matches, line


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("backbone", ["bert", "roberta", "vit", "mae"])
def test_a_plain_implementation_agrees_with_other_sizes(backbone, adapter):
    if adapter == "pfeiffer_after_layernorm" and plain.BACKBONES[backbone][0] == "image":
        pytest.skip("post-norm encoders only")
    for semantics in ("paper", "release"):
        matches, line = parity.verdict(plain.case_of(backbone, adapter, semantics, "cpc", **OTHER_SIZES))
        assert matches, line


@pytest.mark.parametrize("name", CASES)
def test_the_plain_implementation_is_that_of_the_golden_cases(name):
    case = golden(name)
    expected, found = case["outputs"], plain.outputs_of(case, list(case["outputs"]["gradients"]))
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    for field in ("item_embeddings", "user_embeddings_next"):
        difference = torch.tensor(found[field]) - torch.tensor(expected[field])
        if field == "user_embeddings_next":
            difference = difference[torch.tensor(case["inputs"]["log_mask"]).bool()]
        assert difference.abs().max() < 2e-5
    for gradient, (_, norm) in expected["gradients"].items():
        assert found["gradients"][gradient][1] == pytest.approx(norm, rel=1e-3, abs=1e-6), gradient


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"adapter": "pfeiffer_after_layernorm"}, "encoder is pre-norm"),
        ({"adapter": "telepathy"}, "adapter 'telepathy'"),
        ({"semantics": "guess"}, "semantics of 'guess'"),
        ({"adapter": "lora"}, "does not fit"),
        ({"backbone": "capsule"}, "backbone 'capsule'"),
        ({"hyperparameters": {"embedding_dim": 12}}, "KeyError"),
        ({"hyperparameters": plain.SIZES | {"user_heads": 5}}, "unsupported"),
        ({"hyperparameters": plain.SIZES | {"hypercomplex_division": 3}}, "must divide each width"),
        ({"backbone_config": {"hidden_size": 25}}, "unsupported"),
        ({"hyperparameters": plain.SIZES | {"mask_ratio": 0.5}, "backbone": "mae"}, "at random"),
    ],
)
def test_what_makes_no_sense_is_unsupported_in_a_line(change, why):
    matches, line = parity.verdict(plain.case_of("vit", "compacter", "paper") | change)
    assert not matches
    assert line.startswith("vit_sasrec_compacter_paper unsupported ")
    assert why in line
    assert "\n" not in line
