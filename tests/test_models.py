"""User encoder, objectives, item encoders, and the checks of a backbone's folder."""

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from adapter_models import WORDS, model_on
from conftest import interactions_of, random_sequences
from trees import TextSourceSettings

from adapter4rec.checkpoints.merging import save_encoder
from adapter4rec.data.batches import Sampling, TrainingSet
from adapter4rec.data.content import IdStore
from adapter4rec.data.text import TextStore, Tokens
from adapter4rec.models.backbone_folders import backbone_folder, recorded_pooling
from adapter4rec.models.backbones import TEXT_ENCODERS, load_backbone, load_tokenizer
from adapter4rec.models.item_encoder import IdItemEncoder
from adapter4rec.models.text_encoder import TextItemEncoder, build_text_encoder
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.user_encoders.base import causal_padding_mask
from adapter4rec.models.user_encoders.transformer import TransformerUserEncoder
from adapter4rec.runs.identity import initial_hash
from adapter4rec.utils.errors import UserError


def plain_user_encoder(encoder, items, log_mask, heads):
    """The user encoder written out place by place (SPEC: the model), without dropout."""
    x = F.layer_norm(items + encoder.position_embedding.weight, items.shape[-1:], eps=1e-6)
    x = x * encoder.layer_norm.weight + encoder.layer_norm.bias
    for block in encoder.blocks:
        attention = block.attention
        queries, keys, values = (x @ p.weight.T for p in (attention.query, attention.key, attention.value))
        size = x.shape[-1] // heads
        attended = torch.zeros_like(x)
        for user in range(len(x)):
            for place in range(x.shape[1]):
                seen = [key for key in range(place + 1) if log_mask[user, key]]
                for head in range(heads):
                    part = slice(head * size, (head + 1) * size)
                    if not seen:
                        weights, seen_keys = torch.full((x.shape[1],), 1 / x.shape[1]), range(x.shape[1])
                    else:
                        scores = keys[user, seen, part] @ queries[user, place, part] / size**0.5
                        weights, seen_keys = scores.softmax(0), seen
                    attended[user, place, part] = weights @ values[user, list(seen_keys), part]
        x = attention.layer_norm(x + attended @ attention.output.weight.T)
        feed = block.feed_forward
        x = feed.layer_norm(x + feed.down(torch.relu(feed.up(x))))
    return x


def test_user_encoder_is_the_described_function():
    torch.manual_seed(0)
    encoder = TransformerUserEncoder(8, 5, heads=2, blocks=2, dropout=0.1).eval()
    items = torch.randn(3, 5, 8)
    log_mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 1]], dtype=torch.bool)
    with torch.no_grad():
        found, expected = encoder(items, log_mask), plain_user_encoder(encoder, items, log_mask, 2)
    assert torch.allclose(found, expected, atol=1e-5)


def test_padding_and_later_places_play_no_part():
    torch.manual_seed(0)
    encoder = TransformerUserEncoder(8, 5, heads=2, blocks=2, dropout=0.0).eval()
    items, log_mask = torch.randn(1, 5, 8), torch.tensor([[False, False, True, True, True]])
    other = items.clone()
    other[0, :2] = 7.0
    other[0, 4] = -3.0
    with torch.no_grad():
        assert torch.equal(encoder(items, log_mask)[0, 2:4], encoder(other, log_mask)[0, 2:4])
        assert not torch.equal(encoder(items, log_mask)[0, 4], encoder(other, log_mask)[0, 4])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_place_that_may_attend_to_nothing_attends_uniformly(dtype):
    mask = causal_padding_mask(torch.tensor([[False, False, True]]), dtype)
    value = torch.tensor([[[[1.0], [2.0], [6.0]]]], dtype=dtype)
    query = torch.randn(1, 1, 3, 1).to(dtype)
    attended = F.scaled_dot_product_attention(query, query, value, attn_mask=mask)
    assert attended[0, 0, 0].item() == pytest.approx(3.0, rel=1e-2)


def test_fresh_weights_follow_the_description():
    encoder = TransformerUserEncoder(64, 20, heads=2, blocks=2, dropout=0.1)
    down = encoder.blocks[0].feed_forward.down
    assert down.bias.abs().sum() == 0
    assert down.weight.std().item() == pytest.approx((2 / (64 + 256)) ** 0.5, rel=0.05)
    assert encoder.position_embedding.weight.std().item() == pytest.approx((2 / (20 + 64)) ** 0.5, rel=0.1)
    assert encoder.blocks[1].attention.layer_norm.eps == 1e-6


@pytest.mark.parametrize("folder", WORDS)
@pytest.mark.parametrize("attributes", [1, 2])
def test_texts_end_to_end_give_what_each_text_alone_gives(request, folder, attributes):
    backbone = load_backbone(request.getfixturevalue(folder), TEXT_ENCODERS)
    encoder = TextItemEncoder(backbone, 8).eval()
    chance = np.random.default_rng(0)
    tokens = []
    for number in range(attributes):
        lengths = chance.integers(2, 12, 9)
        flat = chance.integers(5, 60, lengths.sum()).astype(np.int32)
        tokens.append(Tokens(flat, np.concatenate([[0], lengths.cumsum()]), str(number)))
    store = TextStore(tokens, tokens_at_once=24)
    items = np.array([7, 2, 9, 4])
    with torch.no_grad():
        found = encoder(store.fetch(items))
        for row, item in enumerate(items):
            vectors = []
            for one in tokens:
                ids = torch.from_numpy(one.tokens[one.offsets[item - 1] : one.offsets[item]].astype(np.int64))
                state = backbone(input_ids=ids[None]).last_hidden_state[0, 0]
                vectors.append(F.gelu(encoder.head(state)))
            assert torch.allclose(found[row], torch.stack(vectors).mean(0), atol=1e-5)


def test_first_layers_of_a_backbone(tiny_bert_folder):
    whole, cut = (
        load_backbone(tiny_bert_folder, TEXT_ENCODERS),
        load_backbone(tiny_bert_folder, TEXT_ENCODERS, layers=1),
    )
    assert len(cut.encoder.layer) == 1
    ids = torch.tensor([[5, 6, 7]])
    states = whole.eval()(input_ids=ids, output_hidden_states=True).hidden_states
    assert torch.allclose(cut.eval()(input_ids=ids).last_hidden_state, states[1], atol=1e-6)
    with pytest.raises(UserError, match="has 2 layers"):
        load_backbone(tiny_bert_folder, TEXT_ENCODERS, layers=3)


def copy_without(folder, target, *names):
    shutil.copytree(folder, target)
    for name in names:
        (target / name).unlink()
    return target


def test_backbone_folders_that_do_not_do(tiny_bert_folder, tmp_path):
    with pytest.raises(UserError, match=r"adapter4rec\.download"):
        backbone_folder("no/such/model")
    without_weights = copy_without(tiny_bert_folder, tmp_path / "a", "model.safetensors")
    with pytest.raises(UserError, match=r"weights.*model\.safetensors"):
        load_backbone(without_weights, TEXT_ENCODERS)
    with pytest.raises(UserError, match=r"no vocabulary.*vocab\.txt"):
        load_tokenizer(copy_without(tiny_bert_folder, tmp_path / "b", "vocab.txt"))
    image = copy_without(tiny_bert_folder, tmp_path / "c")
    (image / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(UserError, match="'vit' is not supported"):
        load_backbone(image, TEXT_ENCODERS)
    broken = copy_without(tiny_bert_folder, tmp_path / "d")
    (broken / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(UserError, match="cannot be read"):
        load_backbone(broken, TEXT_ENCODERS)
    larger = copy_without(tiny_bert_folder, tmp_path / "e")
    config = json.loads((larger / "config.json").read_text())
    (larger / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(UserError, match=r"encoder\.layer\.2\."):
        load_backbone(larger, TEXT_ENCODERS)


def test_gradients_are_the_same_each_time():
    """Many places hold the same item: their gradients must be added up in one order, whatever the threads."""
    chance = np.random.default_rng(0)
    interactions = interactions_of(random_sequences(chance, 512, 300, 20), 300, 20)
    store = IdStore()
    examples = TrainingSet(interactions, store, batch_size=512, seed=0, sampling=Sampling(per_target=1))
    batch = examples[1, 0]
    torch.manual_seed(0)
    encoder = TransformerUserEncoder(dim=64, max_seq_len=20, heads=2, blocks=2, dropout=0.0)
    model = TransRec(IdItemEncoder(300, 64), encoder, "sasrec")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        gradients = set()
        for _ in range(10):
            model.zero_grad()
            model(batch).backward()
            gradients.add(model.item_encoder.head.weight.grad.numpy().tobytes())
    finally:
        torch.set_num_threads(threads)
    assert len(gradients) == 1


@pytest.mark.parametrize("folder", WORDS)
def test_mean_pooling_is_the_mean_over_the_tokens_of_each_text_alone(request, folder):
    backbone = load_backbone(request.getfixturevalue(folder), TEXT_ENCODERS)
    encoder = TextItemEncoder(backbone, 8, "mean").eval()
    chance = np.random.default_rng(0)
    lengths = chance.integers(2, 12, 9)
    flat, offsets = chance.integers(5, 60, lengths.sum()).astype(np.int32), np.r_[0, lengths.cumsum()]
    store = TextStore([Tokens(flat, offsets, "test")], tokens_at_once=24)
    items = np.array([7, 2, 9, 4, 1])
    with torch.no_grad():
        found = encoder(store.fetch(items))
        for row, item in enumerate(items):
            ids = torch.from_numpy(flat[offsets[item - 1] : offsets[item]].astype(np.int64))
            state = backbone(input_ids=ids[None]).last_hidden_state[0].mean(0)
            assert torch.allclose(found[row], F.gelu(encoder.head(state)), atol=1e-5)


@pytest.mark.parametrize(
    ("recorded", "asked", "expected"),
    [
        (None, None, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, None, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, None, "cls"),
        ({"pooling_mode": "mean", "include_prompt": True}, None, "mean"),
        ({"pooling_mode_mean_tokens": True}, "cls", "cls"),
        ({"pooling_mode_max_tokens": True}, "mean", "mean"),
        ({"pooling_mode_max_tokens": True}, None, "pooling_mode_max_tokens"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, None, "records the pooling"),
    ],
)
def test_pooling_is_that_of_a_sentence_transformers_folder(
    tiny_bert_folder, tmp_path, recorded, asked, expected
):
    folder = copy_without(tiny_bert_folder, tmp_path / "model")
    if recorded is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(
            json.dumps(recorded | {"word_embedding_dimension": 32})
        )
    settings = TextSourceSettings(users="-", items="-", backbone=str(folder), pooling=asked)
    if expected not in ("cls", "mean"):
        with pytest.raises(UserError, match=expected):
            build_text_encoder(settings)
        return
    encoder = build_text_encoder(settings)
    assert encoder.pooling == expected
    assert ("mean pooling" in encoder.describe()) == (expected == "mean")
    origin = "--pooling" if asked else "default" if recorded is None else "1_Pooling/config.json"
    assert encoder.describe_input() == f"pooling of texts: {expected} ({origin})"


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_saved_encoder_records_its_pooling(tiny_bert_folder, tmp_path, pooling):
    shutil.copytree(tiny_bert_folder, tmp_path / "backbone")
    (tmp_path / "backbone" / "bpe.codes").write_text("a b 1\n")  # of tokenizers like that of PhoBERT
    model = model_on(tmp_path / "backbone")
    model.item_encoder.pooling = pooling
    save_encoder(model, tmp_path / "saved")
    assert recorded_pooling(tmp_path / "saved") == pooling
    assert (tmp_path / "saved" / "bpe.codes").is_file()


def test_the_hash_of_a_model_knows_how_its_vectors_are_computed(tiny_bert_folder, tiny_vit_folder):
    """Pooling and normalisation may come from files of the backbone, beside weights and settings."""
    texts, images = model_on(tiny_bert_folder), model_on(tiny_vit_folder)
    before = [initial_hash(model) for model in (texts, images)]
    texts.item_encoder.pooling = "mean"
    images.item_encoder.backbone.config.image_mean = [0.0, 0.0, 0.0]
    assert all(initial_hash(model) != was for model, was in zip((texts, images), before, strict=True))
