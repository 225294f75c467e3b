"""Every adapter family on every kind of backbone, in both encoders."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from adapter_models import (
    BACKBONES,
    DIM,
    LENGTH,
    N_ITEMS,
    PRE_NORM,
    WIDTH,
    assert_same,
    base_model,
    batch_for,
    model_on,
    shaken,
    snapshot,
    store_for,
)
from conftest import REPOSITORY
from torch import nn

from adapter4rec.adapters.attaching import add_adapters, detach_adapters, encoder_sites
from adapter4rec.adapters.bottleneck_layers import Bottleneck, HypercomplexLinear, Rule
from adapter4rec.adapters.config import LayerChoice
from adapter4rec.adapters.houlsby import HoulsbyConfig
from adapter4rec.adapters.k_adapter import KAdapterConfig
from adapter4rec.adapters.k_adapter_layers import TransformerAdapter
from adapter4rec.adapters.registry import FAMILIES
from adapter4rec.models.parameters import count_parameters, train_only, trained_state
from adapter4rec.models.parts import ADAPTER_PARTS, PARTS
from adapter4rec.utils.errors import UserError

SMALL = {
    "houlsby": {"item_bottleneck": 8, "user_bottleneck": 4},
    "houlsby_parallel": {"item_bottleneck": 8, "user_bottleneck": 4},
    "pfeiffer": {"item_bottleneck": 8, "user_bottleneck": 4},
    "pfeiffer_after_layernorm": {"item_bottleneck": 8, "user_bottleneck": 4},
    "k_adapter": {"item_inner": 12, "item_inner_heads": 3, "user_inner": 4},
    "lora": {"item_rank": 3, "user_rank": 2},
    "compacter": {"item_bottleneck": 8, "user_bottleneck": 4},
    "prompt": {"prompt_tokens": 5},
    "bitfit": {},
    "layernorm": {},
    "peft": {},
}
EXACT_AT_THE_START = ("lora", "bitfit", "layernorm", "peft")
NEAR_AT_THE_START = ("houlsby", "houlsby_parallel", "pfeiffer", "compacter")
POST_NORM_ONLY = ("pfeiffer_after_layernorm",)
WITHOUT_BIASES = ("tiny_modernbert_folder",)


def config_of(family, **options):
    return FAMILIES[family](**SMALL[family] | options)


MATRIX = [
    (backbone, family)
    for backbone in BACKBONES
    for family in SMALL
    if not (family in POST_NORM_ONLY and backbone in PRE_NORM)
    and not (family == "bitfit" and backbone in WITHOUT_BIASES)
]


@pytest.fixture(params=MATRIX, ids="-".join)
def pair(request):
    return request.param


@pytest.fixture
def model(folder):
    return model_on(folder).eval()


@pytest.fixture
def family(pair):
    return pair[1]


@pytest.fixture
def batch(model):
    return batch_for(model)


@pytest.fixture
def adapted(model, family):
    """A model with adapters whose parameters are no longer those of the start."""
    add_adapters(model, config_of(family, train_layer_norms=True, train_head=True))
    return shaken(model, seed=2)  # with another the few units of a bottleneck may all be dead


def test_configs_import_nothing_heavy():
    """``--help`` and ``--dry-run`` read configs without waiting for torch."""
    code = (
        "import sys; from adapter4rec.adapters.registry import FAMILIES; "
        "[config() for config in FAMILIES.values()]; "
        "assert not {'torch', 'transformers', 'loralib', 'numpy'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


def test_all_families_are_tried():
    assert set(SMALL) == set(FAMILIES)


def test_the_start_is_what_the_family_promises(model, family, batch):
    with torch.no_grad():
        before = model(batch)
        add_adapters(model, config_of(family))
        after = model(batch)
    if family in EXACT_AT_THE_START:
        assert torch.equal(after, before)
    elif family in NEAR_AT_THE_START:
        assert torch.allclose(after, before, rtol=1e-2)
    else:
        assert not torch.equal(after, before)


def test_gradients_reach_all_that_is_trained_and_nothing_else(adapted, batch):
    adapted(batch).backward()
    own = {id(parameter) for parameter in adapted.adapters.parameters()}  # PEFT's are in the backbone, too
    for name, parameter in adapted.named_parameters():
        if id(parameter) in own:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
        else:
            assert parameter.grad is None, name


def test_training_leaves_the_source_model_as_it_was(adapted, batch):
    before = snapshot(adapted)
    optimizer = torch.optim.Adam([p for p in adapted.parameters() if p.requires_grad], lr=1e-2)
    adapted.train()
    for _ in range(2):
        adapted(batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    own = {parameter.data_ptr() for parameter in adapted.adapters.parameters()}
    for name, tensor in adapted.state_dict().items():
        assert torch.equal(tensor, before[name]) == (tensor.data_ptr() not in own), name


def test_detaching_gives_back_the_source_model(model, family, batch):
    with torch.no_grad():
        before, weights, modules = model(batch), snapshot(model), dict(model.named_modules())
        add_adapters(model, config_of(family, train_layer_norms=True, train_head=True))
        for parameter in model.adapters.parameters():
            parameter.add_(0.1)
        assert not torch.equal(model(batch), before)
        detach_adapters(model)
        assert torch.equal(model(batch), before)
    assert_same(snapshot(model), weights)
    found = dict(model.named_modules())
    assert all(found[name] is module for name, module in modules.items() if name != "adapters")


def test_what_was_trained_says_it_all(folder, adapted, family, batch):
    """Its weights, put on the source model anew, give the same outputs; evaluating twice does, too."""
    kept = trained_state(adapted)
    assert all(name.startswith("adapters.") for name in kept)
    fresh = model_on(folder).eval()
    add_adapters(fresh, config_of(family, train_layer_norms=True, train_head=True))
    fresh.load_state_dict(kept, strict=False)
    with torch.no_grad():
        assert torch.equal(fresh(batch), adapted.eval()(batch))
        assert torch.equal(adapted(batch), adapted(batch))


def test_an_item_is_encoded_alike_in_any_company(adapted):
    """Padding tokens of a group play no part, in adapters either."""
    store = store_for(adapted)
    with torch.no_grad():
        together = adapted.encode_items(store.fetch(np.arange(1, N_ITEMS + 1)))
        for item in (1, 7, 30):
            alone = adapted.encode_items(store.fetch(np.array([item])))
            assert torch.allclose(alone[0], together[item - 1], atol=1e-5)


def test_padding_and_later_places_play_no_part(adapted):
    torch.manual_seed(3)
    items = torch.randn(4, LENGTH, DIM)
    log_mask = torch.arange(LENGTH)[None] >= torch.tensor([0, 1, 3, 4])[:, None]
    other = items.clone()
    other[~log_mask] = 9.0
    later = items.clone()
    later[:, -1] = 9.0
    with torch.no_grad():
        expected = adapted.encode_users(items, log_mask)
        assert torch.allclose(adapted.encode_users(other, log_mask)[log_mask], expected[log_mask], atol=1e-5)
        before_last = log_mask.clone()
        before_last[:, -1] = False
        found = adapted.encode_users(later, log_mask)
        assert torch.allclose(found[before_last], expected[before_last], atol=1e-5)


def bottleneck_size(width, inner):
    return 2 * width * inner + width + inner


def hypercomplex_size(inputs, outputs, n=4):
    return inputs + outputs + outputs


def k_adapter_size(width, inner, adapters):
    block = 4 * inner**2 + 2 * inner + 8 * inner**2 + 5 * inner + 2 * inner
    return adapters * (bottleneck_size(width, inner) + 2 * block) + 2 * width**2 + width


def layer_norm_size(model):
    parts = (model.item_encoder.backbone, model.user_encoder)
    modules = [m for part in parts for m in part.modules() if isinstance(m, nn.LayerNorm)]
    return sum(p.numel() for m in modules for p in m.parameters())


def bias_size(model):
    parts = (model.item_encoder.backbone, model.user_encoder)
    return sum(p.numel() for part in parts for name, p in part.named_parameters() if name.endswith("bias"))


def expected_size(family, model):
    both = bottleneck_size(WIDTH, 8) + bottleneck_size(DIM, 4)
    compacter = [
        hypercomplex_size(WIDTH, 8) + hypercomplex_size(8, WIDTH),
        hypercomplex_size(DIM, 4) + hypercomplex_size(4, DIM),
    ]
    return {
        "houlsby": 4 * both,
        "houlsby_parallel": 4 * both,
        "pfeiffer": 2 * both,
        "pfeiffer_after_layernorm": 2 * (both + 2 * WIDTH + 2 * DIM),
        "k_adapter": k_adapter_size(WIDTH, 12, 2) + k_adapter_size(DIM, 4, 2),
        "lora": 2 * 2 * 2 * (3 * WIDTH + 2 * DIM),
        "compacter": 4 * sum(compacter) + 4**3,
        "prompt": 5 * WIDTH,
        "bitfit": bias_size(model),
        "layernorm": layer_norm_size(model),
        "peft": 2 * 2 * 8 * 2 * WIDTH,  # LoRA; Wqkv of ModernBERT has as many
    }[family]


def test_number_of_trained_parameters(model, family):
    expected = expected_size(family, model)
    add_adapters(model, config_of(family))
    train_only(model, ADAPTER_PARTS)
    assert count_parameters(model).trained == expected


RELEASED_SIZES = [
    ("text", "houlsby", {}, 2_387_776),
    ("text", "houlsby_parallel", {}, 2_387_776),
    ("text", "pfeiffer", {"train_layer_norms": True}, 1_232_928),
    ("text", "k_adapter", {}, 3_573_920),
    ("text", "lora", {}, 444_416),
    ("text", "lora", {"semantics": "release"}, 463_104),
    ("text", "compacter", {"train_layer_norms": True}, 99_968),
    ("text", "prompt", {}, 23_040),
    ("image", "houlsby", {}, 2_387_776),
    ("image", "houlsby_parallel", {}, 2_387_776),
    ("image", "houlsby_parallel", {"semantics": "release"}, 1_198_144),
    ("image", "pfeiffer", {}, 1_193_888),
    ("image", "lora", {}, 444_416),
    ("image", "lora", {"semantics": "release"}, 470_272),
    ("image", "k_adapter", {}, 9_479_456),
    ("image", "compacter", {}, 60_928),
    ("image", "prompt", {"prompt_tokens": 10, "train_head": True}, 56_896),
]


@pytest.mark.parametrize(("modality", "family", "options", "expected"), RELEASED_SIZES)
def test_released_sizes_on_base_backbones(modality, family, options, expected):
    base = base_model(modality)
    with torch.device("meta"):
        add_adapters(base, FAMILIES[family](**options))
    assert count_parameters(base).trained == expected


def test_size_of_bert_base_fully_fine_tuned():
    base = base_model("text")
    train_only(base, PARTS)
    assert count_parameters(base).trained == 109_041_728


def test_bottleneck_is_the_described_function():
    torch.manual_seed(0)
    adapter = Bottleneck(6, 3, HoulsbyConfig())
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_()
    y = torch.randn(2, 5, 6)
    inner = torch.clamp(y @ adapter.down.weight.T + adapter.down.bias, min=0)
    assert torch.allclose(adapter(y), inner @ adapter.up.weight.T + adapter.up.bias, atol=1e-6)


def test_dropout_is_applied_where_it_is_set():
    dropping = Bottleneck(6, 3, HoulsbyConfig(adapter_activation="none", adapter_dropout=0.5))
    nn.init.ones_(dropping.up.bias)
    y = torch.zeros(400, 6)
    assert 0.3 < (dropping.train()(y) == 0).float().mean() < 0.7
    assert (dropping.eval()(y) == 1).all()


def test_a_hypercomplex_layer_is_the_sum_of_kronecker_products():
    torch.manual_seed(0)
    shared = Rule(4)
    layer = HypercomplexLinear(shared, 2, 8, 12)
    rule = nn.init.normal_(shared.rule)
    nn.init.normal_(layer.bias)
    weight = sum(torch.kron(rule[i], layer.left[i] @ layer.right[i]) for i in range(4))
    x = torch.randn(3, 8)
    assert torch.allclose(layer(x), x @ weight + layer.bias, atol=1e-5)


def test_a_hypercomplex_layer_begins_as_described():
    """Each division's factors Xavier-uniform with gain √2 for themselves, the bias zero, the rule small."""
    torch.manual_seed(0)
    layer = HypercomplexLinear(Rule(4), 8, 400, 200)
    for factor, fans in ((layer.left, 100 + 8), (layer.right, 8 + 50)):
        bound = 2**0.5 * (6 / fans) ** 0.5
        assert factor.abs().max().item() == pytest.approx(bound, rel=0.02)
        assert factor.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert not torch.equal(layer.left[0], layer.left[1])
    assert not layer.bias.any()
    assert Rule(20).rule.std().item() == pytest.approx(1e-4, rel=0.05)


def test_compacter_shares_one_rule(tiny_bert_folder):
    model = model_on(tiny_bert_folder)
    add_adapters(model, config_of("compacter"))
    rules = [name for name, _ in model.named_parameters() if "rule" in name]
    assert rules == ["adapters.shared.rule"]
    assert list(model.parameter_groups()["shared"]) == rules
    used = {id(m._rule[0]) for m in model.modules() if hasattr(m, "_rule")}
    assert used == {id(model.adapters["shared"])}


@pytest.mark.parametrize("role", ["item", "user"])
def test_k_adapter_is_the_described_chain(tiny_bert_folder, role):
    """a_i = A_i(h_i + a_(i-1)); the output is W [h, a_last] + b."""
    model = model_on(tiny_bert_folder).eval()
    seen = []
    for layer in encoder_sites(model)[role].layers:
        layer.on_state(lambda output, layer_input: seen.append((output, layer_input)) or output)
    add_adapters(model, config_of("k_adapter", encoders=(role,)))
    adapter = model.adapters[role]
    for module in adapter.chain:
        nn.init.normal_(module.up.weight)
    torch.manual_seed(0)
    with torch.no_grad():
        if role == "item":
            ids, mask = torch.tensor([[2, 7, 9, 3]]), torch.ones(1, 4, dtype=torch.bool)
            words = model.item_encoder.backbone.get_input_embeddings()(ids)
            found = model.item_encoder.backbone(
                inputs_embeds=words, attention_mask=mask, position_ids=torch.arange(4)[None]
            ).last_hidden_state
            states, allowed = [output for output, _ in seen], None
        else:
            found = model.encode_users(torch.randn(1, LENGTH, DIM), torch.ones(1, LENGTH, dtype=torch.bool))
            states = [layer_input for _, layer_input in seen]
            allowed = torch.zeros(LENGTH, LENGTH).masked_fill(torch.ones(LENGTH, LENGTH).triu(1) > 0, -1e9)
        latest = 0
        for module, state in zip(adapter.chain, states, strict=True):
            latest = module(state + latest, allowed)
        expected = F.linear(torch.cat([seen[-1][0], latest], -1), adapter.join.weight, adapter.join.bias)
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_transformer_adapter_begins_near_the_identity():
    torch.manual_seed(0)
    module = TransformerAdapter(16, 4, 2, KAdapterConfig()).eval()
    x = torch.randn(2, 5, 16)
    assert torch.allclose(module(x, None), x, atol=0.01)
    assert module.down.weight.std().item() == pytest.approx(2e-4, rel=0.3)


def test_lora_keeps_the_pretrained_projection(tiny_vit_folder):
    """W x + b + (alpha / r) B A x with the source model's own W and b."""
    model = model_on(tiny_vit_folder)
    projection = encoder_sites(model)["item"].layers[1].value
    original = projection.linear
    add_adapters(model, config_of("lora", lora_alpha=2.0))
    factors = model.adapters["item"].layers["1"]["value"]
    nn.init.normal_(factors.lora_B)
    x = torch.randn(4, WIDTH)
    expected = F.linear(x, original.weight, original.bias) + x @ factors.lora_A.T @ factors.lora_B.T * 2 / 3
    assert torch.allclose(projection.linear(x), expected, atol=1e-5)
    assert projection.linear.weight is original.weight


def test_lora_where_one_layer_gives_query_key_and_value(tiny_modernbert_folder):
    """Query and value have updates of their own, the key has none (loralib's MergedLinear)."""
    model = model_on(tiny_modernbert_folder)
    fused = encoder_sites(model)["item"].layers[1].query
    original = fused.linear
    x = torch.randn(4, WIDTH)
    for chosen in (("query", "value"), ("value",)):
        add_adapters(model, config_of("lora", projections=chosen))
        ((name, factors),) = model.adapters["item"].layers["1"].items()
        assert name == "_".join(chosen)
        nn.init.normal_(factors.lora_B)
        updates = iter(zip(factors.lora_A.split(3), factors.lora_B.split(WIDTH), strict=True))
        expected = torch.zeros(4, 3, WIDTH)
        for place, kind in enumerate(("query", "key", "value")):
            if kind in chosen:
                down, up = next(updates)
                expected[:, place] = x @ down.T @ up.T / 3
        found = fused.linear(x) - F.linear(x, original.weight, original.bias)
        assert torch.allclose(found, expected.flatten(1), atol=1e-5)
        detach_adapters(model)


def test_all_of_loralibs_fused_layer_moves_with_the_model(tiny_modernbert_folder):
    model = model_on(tiny_modernbert_folder)
    add_adapters(model, config_of("lora"))
    fused = encoder_sites(model)["item"].layers[0].query.linear
    model.to("meta")
    assert fused.lora_ind.device.type == "meta"
    assert not any("lora_ind" in name for name in model.state_dict())


def test_an_encoder_without_biases_has_none_to_train(tiny_modernbert_folder):
    model = model_on(tiny_modernbert_folder)
    with pytest.raises(UserError, match="have no biases"):
        add_adapters(model, config_of("bitfit"))
    assert not len(model.adapters)
    add_adapters(model, config_of("bitfit", encoders=("user",)))


@pytest.mark.parametrize(("name", "first"), [("tiny_bert_folder", 0), ("tiny_roberta_folder", 2)])
def test_prompt_takes_positions_and_the_title_shifts(request, name, first):
    """RoBERTa counts from behind the padding token's number, with a prompt as without."""
    model = model_on(request.getfixturevalue(name)).eval()
    seen = []
    add_adapters(model, config_of("prompt"))
    model.item_encoder.backbone.register_forward_pre_hook(
        lambda _, __, arguments: seen.append(arguments), with_kwargs=True
    )
    model.encode_items(store_for(model).fetch(np.arange(1, 4)))
    prompt = model.adapters["item"].vectors
    for arguments in seen:
        packing, words = arguments["packing"], arguments["inputs_embeds"][0]
        positions, end = arguments["position_ids"][0], 0
        for count, length in packing.spans:
            for start in range(end, end + count * length, length):
                end = start + length
                assert positions[start:end].tolist() == list(range(first, first + length))
                assert torch.equal(words[start + 1 : start + 1 + len(prompt)], prompt)
        assert end == len(words)


def test_prompt_begins_as_words_or_as_zero(tiny_bert_folder, tiny_vit_folder):
    text, image = model_on(tiny_bert_folder), model_on(tiny_vit_folder)
    for model in (text, image):
        add_adapters(model, config_of("prompt"))
    words = text.item_encoder.backbone.get_input_embeddings().weight
    assert torch.equal(text.adapters["item"].vectors, words[:5])
    assert not image.adapters["item"].vectors.any()


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("all", [0, 1, 2, 3, 4, 5]),
        ("ends", [0, 5]),
        ("first:2", [0, 1]),
        ("last:3", [3, 4, 5]),
        ("1-3", [1, 2, 3]),
        ("4", [4]),
        ("5,0,2", [0, 2, 5]),
    ],
)
def test_choices_of_layers(choice, expected):
    assert LayerChoice(choice).of(6, "item_layers") == expected


@pytest.mark.parametrize("choice", ["", "some", "first:7", "last:0", "3-9", "6", "1,,2", "-1", "5-2"])
def test_choices_of_layers_that_mean_nothing(choice):
    with pytest.raises(UserError, match=r"--item_layers .*there are 6 layers"):
        LayerChoice(choice).of(6, "item_layers")


@pytest.mark.parametrize("family", ["houlsby", "lora", "compacter", "bitfit", "layernorm", "k_adapter"])
def test_only_the_chosen_layers_are_adapted(tiny_bert_folder, family):
    model = model_on(tiny_bert_folder)
    add_adapters(model, config_of(family, item_layers="1", user_layers="last:1", encoders=("item", "user")))
    if family == "k_adapter":
        assert len(model.adapters["item"].chain) == len(model.adapters["user"].chain) == 1
        return
    names = [name.removeprefix("adapters.") for name, _ in model.adapters.named_parameters()]
    own = [name for name in names if not name.startswith("shared")]
    assert own
    assert all(".1." in name for name in own)


def test_one_sublayer_alone(tiny_vit_folder):
    model = model_on(tiny_vit_folder)
    add_adapters(model, config_of("houlsby_parallel", sublayers=("feed_forward",)))
    assert {kind for layer in model.adapters["item"].layers.values() for kind in layer} == {"feed_forward"}


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("prompt", {"encoders": ("item", "user")}, "--encoders user"),
        ("prompt", {"item_layers": "first:1"}, "--item_layers first:1"),
        ("prompt", {"prompt_tokens": 10_000}, "--prompt_tokens 10000: the vocabulary has only"),
        ("pfeiffer_after_layernorm", {"sublayers": ("attention",)}, "--sublayers attention"),
        ("k_adapter", {"item_inner": 12, "item_inner_heads": 5}, "must divide"),
        ("compacter", {"divisions": 5}, "must divide each width"),
        ("layernorm", {"train_layer_norms": False}, "trains nothing else"),
        ("houlsby", {"item_layers": "0-9"}, "there are 2 layers"),
    ],
)
def test_combinations_that_mean_nothing_leave_the_model_alone(tiny_bert_folder, family, options, message):
    model = model_on(tiny_bert_folder).eval()
    batch = batch_for(model)
    with torch.no_grad():
        before = model(batch)
        with pytest.raises(UserError, match=message):
            add_adapters(model, config_of(family, **options))
        assert not len(model.adapters)
        assert torch.equal(model(batch), before)


def test_there_is_no_place_behind_a_norm_that_comes_before(tiny_vit_folder):
    model = model_on(tiny_vit_folder)
    with pytest.raises(UserError, match="is pre-norm"):
        add_adapters(model, config_of("pfeiffer_after_layernorm"))
    add_adapters(model, config_of("pfeiffer_after_layernorm", encoders=("user",)))
