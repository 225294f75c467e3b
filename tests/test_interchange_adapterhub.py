"""Folders of AdapterHub's library: their form, round trips and refusals.

That the library computes the same with them is tested with the library itself, by `make test-adapterhub`.
"""

import json
import os
import pickle

import pytest
import torch
from adapter_models import model_on
from interchange_models import FOLDERS, adapted, assert_equal_states, maker_of, states
from safetensors.torch import save_file

from adapter4rec.adapters.attaching import detach_adapters
from adapter4rec.adapters.compacter import CompacterConfig
from adapter4rec.adapters.houlsby import HoulsbyConfig, HoulsbyParallelConfig
from adapter4rec.adapters.lora import LoraConfig
from adapter4rec.adapters.pfeiffer import PfeifferAfterLayerNormConfig, PfeifferConfig
from adapter4rec.interchange.adapterhub import export_adapterhub, import_adapterhub
from adapter4rec.utils.errors import UserError

KINDS = [*FOLDERS[:3], "xlm-roberta", "clip_vision_model"]
CONFIGS = {
    "houlsby": HoulsbyConfig(encoders=("item",), item_bottleneck=5, adapter_dropout=0.1),
    "pfeiffer": PfeifferConfig(
        encoders=("item",), item_layers="1", item_bottleneck=8, adapter_activation="gelu_tanh"
    ),
    "feed_forward": PfeifferConfig(encoders=("item",), sublayers=("feed_forward",), item_bottleneck=48),
    "parallel": HoulsbyParallelConfig(encoders=("item",), adapter_activation="silu", item_bottleneck=7),
}


@pytest.fixture
def bert(request):
    return maker_of(request, "tiny_bert_folder")


@pytest.fixture
def saved(bert, tmp_path):
    """A folder with Houlsby adapters of BERT."""
    export_adapterhub(adapted(bert(), HoulsbyConfig(item_bottleneck=8)), tmp_path / "saved")
    return tmp_path / "saved"


def edit(folder, options=None, **content):
    """Change some of what a folder's adapter_config.json says."""
    path = folder / "adapter_config.json"
    whole = json.loads(path.read_text()) | content
    whole["config"] = whole["config"] | (options or {})
    path.write_text(json.dumps(whole))


def weights_of(folder):
    return torch.load(folder / "pytorch_adapter.bin", weights_only=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_round_trip(request, kind, config, tmp_path):
    make = maker_of(request, kind)
    source = adapted(make(), config)
    assert export_adapterhub(source, tmp_path / "saved") == []
    target = make()
    import_adapterhub(target, tmp_path / "saved")
    assert target.adapters.config == config
    assert torch.equal(states(target), states(source))
    assert (states(source) - states(make())).abs().max() > 0.01


@pytest.mark.parametrize("folder", FOLDERS[:3])
def test_round_trip_of_the_item_half_of_a_whole_model(request, folder, tmp_path):
    folder = request.getfixturevalue(folder)
    source = adapted(model_on(folder), HoulsbyConfig(item_bottleneck=8, train_head=True))
    left_out = export_adapterhub(source, tmp_path / "saved", "news")
    assert [sentence.split()[1] for sentence in left_out] == ["item", "user"]
    target = model_on(folder)
    import_adapterhub(target, tmp_path / "saved")
    own, theirs = (model.adapters["item"].state_dict() for model in (target, source))
    assert list(target.adapters) == ["item"]
    assert all(torch.equal(own[name], theirs[name]) for name in own)


def test_the_form_of_a_folder(saved):
    """The names and options of the library, as it writes and reads them."""
    tensors = weights_of(saved)
    places = ("attention.output", "output")
    assert set(tensors) == {
        f"encoder.layer.{number}.{place}.adapters.adapter4rec.{linear}.{field}"
        for number in (0, 1)
        for place in places
        for linear in ("adapter_down.0", "adapter_up")
        for field in ("weight", "bias")
    }
    assert tensors["encoder.layer.1.output.adapters.adapter4rec.adapter_down.0.weight"].shape == (8, 32)
    content = json.loads((saved / "adapter_config.json").read_text())
    names = ("model_type", "hidden_size", "name", "version")
    assert [content[name] for name in names] == ["bert", 32, "adapter4rec", "adapters.1.3.0"]
    options = content["config"]
    assert (options["mh_adapter"], options["output_adapter"], options["reduction_factor"]) == (
        True,
        True,
        4.0,
    )
    assert (options["original_ln_before"], options["original_ln_after"]) == (False, True)


@pytest.mark.parametrize("bottleneck", range(1, 70))
def test_the_reduction_factor_gives_the_width(bert, bottleneck, tmp_path):
    source = adapted(bert(), HoulsbyConfig(item_bottleneck=bottleneck))
    export_adapterhub(source, tmp_path / "saved")
    content = json.loads((tmp_path / "saved" / "adapter_config.json").read_text())
    assert int(32 // content["config"]["reduction_factor"]) == bottleneck


def test_a_name_around_the_encoder_and_safetensors(bert, saved):
    expected = states(adapted(bert(), HoulsbyConfig(item_bottleneck=8)))
    tensors = {f"bert.{name}": tensor for name, tensor in weights_of(saved).items()}
    (saved / "pytorch_adapter.bin").unlink()
    save_file(tensors, saved / "adapter.safetensors")
    ours = bert()
    import_adapterhub(ours, saved)
    assert torch.equal(states(ours), expected)


def test_scaling_goes_into_the_upper_projection(bert, saved):
    edit(saved, {"scaling": 4.0})
    scaled = adapted(bert(), HoulsbyConfig(item_bottleneck=8))
    with torch.no_grad():
        for name, parameter in scaled.adapters.named_parameters():
            if ".up." in name:
                parameter.mul_(4)
    ours = bert()
    import_adapterhub(ours, saved)
    assert_equal_states(states(ours), states(scaled))


def test_options_without_effect(bert, saved):
    same = {"reduction_factor": {"0": 3.9, "default": 4}, "residual_before_ln": False, "phm_dim": 8}
    edit(saved, same | {"leave_out": None, "scaling": 1})
    ours = bert()
    import_adapterhub(ours, saved)
    assert ours.adapters.config.item_bottleneck == 8


UNABLE = {
    "after its norm": (
        PfeifferAfterLayerNormConfig(),
        "cannot export pfeiffer_after_layernorm",
    ),
    "compacter": (
        CompacterConfig(),
        "cannot export compacter adapters .*; supported families: houlsby, pfeiffer",
    ),
    "lora": (LoraConfig(), "cannot export lora"),
    "layer norms": (HoulsbyConfig(train_layer_norms=True), "trained layer norms"),
    "user alone": (HoulsbyConfig(encoders=("user",)), "no adapters to export"),
}


@pytest.mark.parametrize(("config", "why"), UNABLE.values(), ids=UNABLE)
def test_what_the_library_cannot_hold_is_not_exported(tiny_bert_folder, config, why, tmp_path):
    model = adapted(model_on(tiny_bert_folder), config)
    with pytest.raises(UserError, match=why):
        export_adapterhub(model, tmp_path / "saved")
    assert not list(tmp_path.iterdir())


def test_encoders_that_the_library_does_not_know(request, bert, saved, tmp_path):
    dinov2 = maker_of(request, "dinov2")
    with pytest.raises(UserError, match="adapters of 'dinov2' encoders"):
        export_adapterhub(adapted(dinov2(), HoulsbyConfig()), tmp_path / "other")
    edit(saved, model_type="dinov2")
    with pytest.raises(UserError, match="adapters of 'dinov2' encoders"):
        import_adapterhub(dinov2(), saved)
    with pytest.raises(UserError, match="model_type is 'dinov2'; the item encoder is 'bert'"):
        import_adapterhub(bert(), saved)


def test_a_folder_that_exists_is_kept(bert, tmp_path):
    with pytest.raises(UserError, match="already exists"):
        export_adapterhub(adapted(bert(), HoulsbyConfig()), tmp_path)


FOREIGN = {
    "reads the sum": (
        {"original_ln_before": True},
        "original_ln_before is True",
    ),
    "no residual": ({"original_ln_after": False}, "original_ln_after"),
    "norm before": ({"ln_before": True}, "ln_before"),
    "norm behind": ({"ln_after": True}, "ln_after"),
    "gates": ({"use_gating": True}, "use_gating"),
    "invertible": ({"inv_adapter": "nice"}, "inv_adapter"),
    "cross": ({"cross_adapter": True}, "cross_adapter"),
    "phm": ({"phm_layer": True}, "phm_layer"),
    "depth": ({"stochastic_depth": 0.1}, "stochastic_depth"),
    "trained factor": ({"scaling": "learned"}, "scaling is 'learned'"),
    "another method": ({"architecture": "lora"}, "only bottleneck adapters"),
    "activation": ({"non_linearity": "leakyrelu"}, "did you mean 'relu'"),
}


@pytest.mark.parametrize(("options", "why"), FOREIGN.values(), ids=FOREIGN)
def test_what_has_no_counterpart_here_is_not_imported(bert, saved, options, why):
    edit(saved, options)
    ours = bert()
    before = states(ours)
    with pytest.raises(UserError, match=why):
        import_adapterhub(ours, saved)
    assert not hasattr(ours, "adapters")
    assert torch.equal(states(ours), before)


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_damaged_files(bert, saved, tmp_path):
    with pytest.raises(UserError, match="not an adapter folder of AdapterHub"):
        import_adapterhub(bert(), tmp_path / "nowhere")
    weights = saved / "pytorch_adapter.bin"
    tensors = weights_of(saved)
    name, _ = tensors.popitem()
    torch.save(tensors, weights)
    with pytest.raises(UserError, match=f"{name}: not in the file"):
        import_adapterhub(bert(), saved)
    torch.save({name: one[:3] if "layer.0" in name else one for name, one in tensors.items()}, weights)
    with pytest.raises(UserError, match=r"bottleneck widths \[3, 8\]"):
        import_adapterhub(bert(), saved)
    torch.save({"config": 1}, weights)
    with pytest.raises(UserError, match="not a dictionary of tensors"):
        import_adapterhub(bert(), saved)
    weights.write_bytes(pickle.dumps(Trap(tmp_path / "trapped")))
    with pytest.raises(UserError, match="more than tensors"):
        import_adapterhub(bert(), saved)
    assert not (tmp_path / "trapped").exists()
    weights.unlink()
    with pytest.raises(UserError, match="No such file"):
        import_adapterhub(bert(), saved)


def test_the_imported_adapter_comes_off_without_a_trace(bert, saved):
    ours = bert()
    before = states(ours)
    import_adapterhub(ours, saved)
    assert not torch.equal(states(ours), before)
    detach_adapters(ours)
    assert torch.equal(states(ours), before)
