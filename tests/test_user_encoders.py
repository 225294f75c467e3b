"""Each user encoder against a second implementation, position by position, and in a whole run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from adapter_models import DIM, LENGTH, batch_for, model_on, shaken
from conftest import write_domain
from trees import TextSourceSettings, TextTargetSettings, carry_out

import adapter4rec
from adapter4rec.adapters.attaching import add_adapters, detach_adapters
from adapter4rec.adapters.files import load_adapter, save_adapter
from adapter4rec.adapters.registry import FAMILIES
from adapter4rec.models.losses.base import Loss
from adapter4rec.models.losses.bce import BceLoss
from adapter4rec.models.parts import USER_ENCODER
from adapter4rec.models.registry import LOSSES, USER_ENCODERS, registered
from adapter4rec.models.user_encoders.base import UserEncoder
from adapter4rec.models.user_encoders.gru4rec import Gru4RecUserEncoder
from adapter4rec.utils.errors import UserError
from Pretraining.Text.train import run as run_source

ATTENTIVE = ["transformer", "ligr", "hstu"]
"""Those with sites for adapters."""
MASK = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1]], dtype=torch.bool)


def encoder_named(name, **options):
    settings = TextSourceSettings(users="-", items="-", embedding_dim=DIM, max_seq_len=LENGTH, **options)
    torch.manual_seed(0)
    encoder = registered(USER_ENCODERS, name).from_settings(settings).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():  # zero biases would hide what they do
            parameter.add_(0.1 * torch.randn_like(parameter))
    return encoder


def normed(norm, x):
    deviation = (x - x.mean()).pow(2).mean().sqrt()
    return (x - x.mean()) / (deviation**2 + 1e-6).sqrt() * norm.weight + norm.bias


def swish(x):
    return x / (1 + (-x).exp())


def ligr(encoder, xs):
    """One user's real positions, ``[positions, d]``."""
    for block in encoder.blocks:
        rows = [normed(block.attention_norm, x) for x in xs]
        after = []
        for place, x in enumerate(xs):
            heads = []
            for part in torch.arange(DIM).chunk(encoder.heads):
                q = (block.query.weight @ rows[place] + block.query.bias)[part]
                ks = [(block.key.weight @ row + block.key.bias)[part] for row in rows[: place + 1]]
                vs = [(block.value.weight @ row + block.value.bias)[part] for row in rows[: place + 1]]
                weights = torch.stack([q @ k for k in ks]).div(len(part) ** 0.5).softmax(0)
                heads.append(sum(w * v for w, v in zip(weights, vs, strict=True)))
            y = block.attention_output(torch.cat(heads))
            z = x + y / (1 + (-block.attention_gate(x)).exp())
            inner = normed(block.feed_forward_norm, z)
            inner = swish(block.activated.weight @ inner) * (block.linear.weight @ inner)
            after.append(z + block.down.weight @ inner / (1 + (-block.feed_forward_gate(z)).exp()))
        xs = torch.stack(after)
    return xs


def hstu(encoder, xs):
    for block in encoder.blocks:
        rows = [normed(block.norm, x) for x in xs]
        after = []
        for place, x in enumerate(xs):
            heads = []
            for part in torch.arange(DIM).chunk(encoder.heads):
                q = swish(block.query.weight @ rows[place])[part]
                total = torch.zeros(len(part))
                for earlier in range(place + 1):
                    k, v = (swish(p.weight @ rows[earlier])[part] for p in (block.key, block.value))
                    total += swish(q @ k + block.distance.weight[place - earlier, 0]) / LENGTH * v
                heads.append(total)
            gated = normed(block.attended_norm, torch.cat(heads)) * swish(block.gate.weight @ rows[place])
            after.append(x + block.output.weight @ gated + block.output.bias)
        xs = torch.stack(after)
    return torch.stack([normed(encoder.layer_norm, x) for x in xs])


def gru4rec(encoder, xs):
    for layer in encoder.gru.all_weights:
        inputs, states, bias_in, bias_state = (one.chunk(3) for one in layer)
        h, outputs = torch.zeros(DIM), []
        for x in xs:
            reset, update = (
                torch.sigmoid(inputs[i] @ x + bias_in[i] + states[i] @ h + bias_state[i]) for i in (0, 1)
            )
            new = torch.tanh(inputs[2] @ x + bias_in[2] + reset * (states[2] @ h + bias_state[2]))
            h = (1 - update) * new + update * h
            outputs.append(h)
        xs = torch.stack(outputs)
    return torch.stack([encoder.output.weight @ x + encoder.output.bias for x in xs])


def mean(_, xs):
    return torch.stack([xs[: place + 1].mean(0) for place in range(len(xs))])


PLAIN = {"ligr": ligr, "hstu": hstu, "gru4rec": gru4rec, "mean": mean}


def test_every_user_encoder_has_a_second_implementation():
    assert {*PLAIN, "transformer"} == set(USER_ENCODERS)  # the transformer's is in test_models.py


@pytest.mark.parametrize("name", PLAIN)
def test_a_user_encoder_is_the_described_function(name):
    encoder = encoder_named(name)
    items = torch.randn(3, LENGTH, DIM)
    with torch.no_grad():
        found = encoder(items, MASK)
        for user, real in enumerate(MASK):
            xs = items[user, real]
            if hasattr(encoder, "position_embedding"):
                xs = xs + encoder.position_embedding.weight[real]
            assert torch.allclose(found[user, real], PLAIN[name](encoder, xs), atol=1e-5)


@pytest.mark.parametrize("name", USER_ENCODERS)
def test_padding_and_later_positions_play_no_part(name):
    encoder = encoder_named(name)
    items, log_mask = torch.randn(1, LENGTH, DIM), MASK[:1]
    other = items.clone()
    other[0, :2], other[0, 5] = 7.0, -3.0
    with torch.no_grad():
        found, changed = encoder(items, log_mask)[0], encoder(other, log_mask)[0]
    assert torch.allclose(found[2:5], changed[2:5], atol=1e-6)
    assert not torch.allclose(found[5], changed[5], atol=1e-3)


@pytest.mark.parametrize("name", USER_ENCODERS)
def test_dropout_is_applied_in_training_only(name):
    encoder, items = encoder_named(name, dropout=0.5), torch.randn(3, LENGTH, DIM)
    assert torch.equal(encoder(items, MASK), encoder(items, MASK))
    encoder.train()
    assert torch.equal(encoder(items, MASK), encoder(items, MASK)) == (name == "mean")


@pytest.mark.parametrize("name", USER_ENCODERS)
def test_sizes_are_those_of_the_weights(name):
    sizes = encoder_named(name, user_blocks=3).sizes_of(encoder_named(name, user_blocks=3).state_dict())
    expected = {"max_seq_len": LENGTH, "embedding_dim": DIM, "user_blocks": 3}
    assert sizes == {key: expected[key] for key in sizes}
    assert set(sizes) == set(expected if name in ATTENTIVE else list(expected)[1:] if sizes else ())


def options_of(family, name):
    """Options with which a family attaches to a user encoder."""
    one_sublayer = name == "hstu" and family in ("houlsby", "houlsby_parallel", "compacter")
    inner = {"user_inner": 4} if family == "k_adapter" else {}
    return {"encoders": ("user",)} | ({"sublayers": ("attention",)} if one_sublayer else {}) | inner


CANNOT_ATTACH = {("ligr", "pfeiffer_after_layernorm"): "pre-norm", ("hstu", "pfeiffer_after_layernorm"): "no"}


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"prompt", "peft"}))
@pytest.mark.parametrize("name", ATTENTIVE)
def test_adapters_attach_train_and_come_off(tiny_bert_folder, tmp_path, name, family):
    model = model_on(tiny_bert_folder).eval()
    model.user_encoder = encoder_named(name)
    items = torch.randn(3, LENGTH, DIM)
    plain = model.user_encoder(items, MASK)
    config = FAMILIES[family](**options_of(family, name))
    if reason := CANNOT_ATTACH.get((name, family)):
        with pytest.raises(UserError, match=reason):
            add_adapters(model, config)
        assert torch.equal(model.user_encoder(items, MASK), plain)
        return
    add_adapters(model, config, seed=0)
    model(batch_for(model)).backward()
    assert all(p.grad is not None for p in model.adapters.parameters())
    shaken(model)
    adapted = model.user_encoder(items, MASK)
    assert not torch.allclose(adapted[MASK], plain[MASK], atol=1e-4)
    save_adapter(model, tmp_path / "adapter.safetensors")
    detach_adapters(model)
    assert torch.equal(model.user_encoder(items, MASK), plain)
    load_adapter(model, tmp_path / "adapter.safetensors")
    assert torch.equal(model.user_encoder(items, MASK), adapted)


@pytest.mark.parametrize(
    ("name", "family", "options", "message"),
    [
        ("hstu", "houlsby", {}, r"HstuBlock has no feed_forward sublayer, only attention; .*--encoders item"),
        (
            "gru4rec",
            "houlsby",
            {},
            r"GRU4Rec.* no attention or feed-forward sublayers; use --encoders item",
        ),
        ("mean", "bitfit", {}, "mean of width 16.* has no attention"),
        ("ligr", "houlsby", {"semantics": "release"}, "--user_encoder transformer only"),
    ],
)
def test_what_cannot_attach_is_refused_with_the_reason(tiny_bert_folder, name, family, options, message):
    model = model_on(tiny_bert_folder).eval()
    model.user_encoder = encoder_named(name)
    with pytest.raises(UserError, match=message):
        add_adapters(model, FAMILIES[family](**options))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not model.adapters


@pytest.fixture(scope="module")
def domain(tmp_path_factory):
    titles = ["red house", "blue garden", "river city", "football match", "oil price", "snow storm"]
    users = {f"u{n}": [f"i{(n + step) % 6}" for step in range(4 + n % 3)] for n in range(12)}
    items = {f"i{number}": title for number, title in enumerate(titles)}
    return write_domain(tmp_path_factory.mktemp("domain"), users, items)


@pytest.mark.parametrize("objective", ["sasrec", "cpc"])
@pytest.mark.parametrize("name", USER_ENCODERS)
def test_head_on_cached_states_then_a_target_then_recommendations(
    domain, tiny_bert_folder, tmp_path, name, objective
):
    common = {
        "users": domain[0],
        "items": domain[1],
        "backbone": str(tiny_bert_folder),
        "user_encoder": name,
        "objective": objective,
        "embedding_dim": DIM,
        "epochs": 1,
        "batch_size": 8,
        "precision": "fp32",
        "device": "cpu",
        "cache_folder": tmp_path / "cache",
    }
    source = tmp_path / "source.safetensors"
    carry_out(
        TextSourceSettings.from_values(
            common | {"method": "head", "export": source, "run_folder": tmp_path / "source"}
        )
    )
    target = TextTargetSettings.from_values(
        common
        | {"method": "houlsby", "encoders": "item", "source_checkpoint": source}
        | {"run_folder": tmp_path / "target"}
    )
    first = carry_out(target)
    again = carry_out(replace(target, mode="test"))
    assert again["test"] == first["test"]
    loaded = adapter4rec.load_source(source)
    assert loaded.user_encoder.describe() == registered(USER_ENCODERS, name).from_settings(target).describe()
    groups = loaded.parameter_groups()
    assert (USER_ENCODER in groups) == (name != "mean")
    model = adapter4rec.load(tmp_path / "target")
    assert len(model.recommend(model.clicks_of("u1")[:2], top_k=3)) == 3


class Normed(Gru4RecUserEncoder):
    """A user encoder with running statistics, which are no parameters."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.norm = torch.nn.BatchNorm1d(self.width)

    def forward(self, items, log_mask):
        return self.norm(super().forward(items, log_mask).transpose(1, 2)).transpose(1, 2)


def test_buffers_of_a_user_encoder_belong_to_a_run(tiny_bert_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(USER_ENCODERS, "normed", Normed)
    clicks = {f"u{u}": [f"i{(u + step) % 10}" for step in range(6)] for u in range(20)}
    users, items = write_domain(tmp_path / "domain", clicks, {f"i{i}": f"item {i}" for i in range(10)})
    options = {"users": users, "items": items, "method": "id", "user_encoder": "normed", "device": "cpu"}
    options |= {"backbone": str(tiny_bert_folder), "embedding_dim": 8, "max_seq_len": 5, "batch_size": 4}
    options |= {"epochs": 3, "run_folder": tmp_path / "run", "cache_folder": tmp_path / "cache"}
    result = run_source(**options)
    assert run_source(**options, mode="test")["test"] == result["test"]
    own = adapter4rec.load(tmp_path / "run", device="cpu").run.model.user_encoder
    assert own.norm.num_batches_tracked > 0


class LastOnly(Gru4RecUserEncoder):
    """A vector for the last position alone."""

    def forward(self, items, log_mask):
        return super().forward(items, log_mask)[:, -1]


class PerTarget(BceLoss):
    """A loss for each target."""

    def forward(self, users, targets, items, batch):
        return (users * targets).sum(-1)


@pytest.mark.parametrize(
    ("registry", "name", "part", "expected"),
    [
        (
            USER_ENCODERS,
            "user_encoder",
            LastOnly,
            r"LastOnly.forward .* \[4, 8\]; expected \[4, 5, 8\]",
        ),
        (LOSSES, "loss", PerTarget, r"PerTarget.forward returned .*; expected \[\]"),
    ],
)
def test_a_user_encoder_or_a_loss_of_another_shape_is_named(
    registry, name, part, expected, tmp_path, monkeypatch
):
    monkeypatch.setitem(registry, "own", part)
    clicks = {f"u{u}": [f"i{(u + step) % 10}" for step in range(6)] for u in range(8)}
    users, items = write_domain(tmp_path / "domain", clicks, {f"i{i}": f"item {i}" for i in range(10)})
    options = {"users": users, "items": items, "method": "id", name: "own", "device": "cpu", "batch_size": 4}
    options |= {"embedding_dim": 8, "max_seq_len": 5, "run_folder": tmp_path / "run"}
    with pytest.raises(UserError, match=expected):
        run_source(**options, cache_folder=tmp_path / "cache")


def test_a_user_encoder_or_a_loss_that_lacks_a_member_is_named():
    class Part(UserEncoder):
        def forward(self, items, log_mask):
            return items

    class NoSampling(Loss):
        def forward(self, users, targets, items, batch):
            return users.sum()

    with pytest.raises(TypeError, match=r"Part .*describe"):
        Part(DIM)
    with pytest.raises(TypeError, match=r"NoSampling .*sampling"):
        NoSampling(None, 3)
