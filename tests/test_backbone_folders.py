"""Folders of backbones that load but do not fit: weights, settings, tokenizers, and code in the folder."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapter4rec.data.text import TextStore, tokenise
from adapter4rec.models.backbones import IMAGE_ENCODERS, TEXT_ENCODERS, load_backbone, load_tokenizer
from adapter4rec.models.text_encoder import TextItemEncoder
from adapter4rec.utils.errors import UserError

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
WORDS = {**SIZES, "vocab_size": 90}
PATCHES = {**SIZES, "image_size": 16, "patch_size": 4}
MODERN = {"pad_token_id": 0, "bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3}
QUERY = "encoder.layer.0.attention.self.query"


def changed_weights(source: Path, target: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]):
    shutil.copytree(source, target)
    weights = target / "model.safetensors"
    save_file(change(load_file(weights)), weights, metadata={"format": "pt"})
    return target


def changed_config(source: Path, target: Path, file: str = "config.json", **settings: object) -> Path:
    shutil.copytree(source, target)
    path = target / file
    there = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(there | settings))
    return target


class TestWeights:
    @pytest.mark.parametrize(
        "names",
        [
            [f"{QUERY}.lora_A.default.weight", f"{QUERY}.lora_B.default.weight"],
            ["adapters.item.layers.0.attention.down.weight"],
            ["prompt"],
            ["encoder.layer.2.output.dense.weight"],  # of a layer that config.json does not have
            ["encoder.layer.0.output.adapters.news.adapter_up.weight"],
        ],
    )
    def test_weights_that_nothing_reads_are_named(self, tiny_bert_folder, tmp_path, names):
        more = {name: torch.zeros(2, 2) for name in names}
        folder = changed_weights(tiny_bert_folder, tmp_path / "more", lambda state: state | more)
        with pytest.raises(UserError) as error:
            load_backbone(folder, TEXT_ENCODERS)
        assert all(name in str(error.value) for name in names)

    @pytest.mark.parametrize("prefix", ["model.", "module.", "base_model.model."])
    @pytest.mark.parametrize("backbone", ["tiny_bert_folder", "tiny_dinov2_folder"])
    def test_wrapped_weights_do_not_count(self, request, tmp_path, backbone, prefix):
        folder = changed_weights(
            request.getfixturevalue(backbone),
            tmp_path / "wrapped",
            lambda state: {prefix + name: tensor for name, tensor in state.items()},
        )
        kinds = TEXT_ENCODERS if "bert" in backbone else IMAGE_ENCODERS
        with pytest.raises(UserError, match=r"missing: embeddings"):
            load_backbone(folder, kinds)

    def test_weights_one_level_down_are_named(self, tiny_bert_folder, tmp_path):
        shutil.copytree(tiny_bert_folder, tmp_path / "nested")
        weights = tmp_path / "nested" / "model.safetensors"
        torch.save({"state_dict": load_file(weights), "epoch": 3}, weights.with_name("pytorch_model.bin"))
        weights.unlink()
        with pytest.raises(UserError, match="missing: embeddings"):
            load_backbone(tmp_path / "nested", TEXT_ENCODERS)

    def test_missing_weights_are_named(self, tiny_bert_folder, tmp_path):
        def without(state: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: tensor for name, tensor in state.items() if name != f"{QUERY}.bias"}

        folder = changed_weights(tiny_bert_folder, tmp_path / "less", without)
        with pytest.raises(UserError, match=f"{QUERY}.bias"):
            load_backbone(folder, TEXT_ENCODERS)

    @pytest.mark.parametrize("content", [[1, 2], {"code": print}], ids=["list", "code"])
    def test_a_file_of_something_else_is_refused(self, tiny_bert_folder, tmp_path, content):
        shutil.copytree(tiny_bert_folder, tmp_path / "else")
        (tmp_path / "else" / "model.safetensors").unlink()
        torch.save(content, tmp_path / "else" / "pytorch_model.bin")
        with pytest.raises(UserError, match="else"):
            load_backbone(tmp_path / "else", TEXT_ENCODERS)

    def test_an_adapter_beside_the_weights_is_refused(self, tiny_bert_folder, tmp_path):
        folder = tmp_path / "adapted"
        shutil.copytree(tiny_bert_folder, folder)
        peft = pytest.importorskip("peft")
        model = transformers.BertModel.from_pretrained(tiny_bert_folder)
        peft.get_peft_model(model, peft.LoraConfig(target_modules=["query"])).save_pretrained(folder)
        with pytest.raises(UserError, match=r"adapter_config\.json"):
            load_backbone(folder, TEXT_ENCODERS)

    @pytest.mark.parametrize("layers", [None, 1])
    @pytest.mark.parametrize(
        ("kind", "config", "options"),
        [
            ("BertForPreTraining", "BertConfig", WORDS),
            ("BertForSequenceClassification", "BertConfig", WORDS),
            ("RobertaForMaskedLM", "RobertaConfig", WORDS),
            ("RobertaModel", "RobertaConfig", WORDS),
            ("XLMRobertaForMaskedLM", "XLMRobertaConfig", WORDS),
            ("ModernBertForMaskedLM", "ModernBertConfig", WORDS | MODERN),
            ("ViTForImageClassification", "ViTConfig", PATCHES),
            ("ViTForMaskedImageModeling", "ViTConfig", PATCHES | {"encoder_stride": 4}),
            ("ViTMAEForPreTraining", "ViTMAEConfig", PATCHES | {"decoder_num_hidden_layers": 1}),
            ("Dinov2ForImageClassification", "Dinov2Config", PATCHES),
            ("CLIPVisionModelWithProjection", "CLIPVisionConfig", PATCHES),
        ],
    )
    def test_published_kinds_of_checkpoints_load(self, tmp_path, kind, config, options, layers):
        model = getattr(transformers, kind)(getattr(transformers, config)(**options))
        model.save_pretrained(tmp_path)
        kinds = TEXT_ENCODERS if "vocab_size" in options else IMAGE_ENCODERS
        loaded = load_backbone(tmp_path, kinds, layers)
        encoder = model.base_model if kind != "CLIPVisionModelWithProjection" else model.vision_model
        theirs = encoder.state_dict()
        for name, tensor in loaded.state_dict().items():
            assert torch.equal(tensor, theirs[name]), name

    @pytest.mark.parametrize("layers", [None, 1])
    def test_a_clip_folder_with_both_towers_loads(self, tiny_clip_folder, layers):
        load_backbone(tiny_clip_folder, IMAGE_ENCODERS, layers)

    def test_index_buffers_of_older_files_are_harmless(self, tiny_bert_folder, tmp_path):
        older = {"embeddings.position_ids": torch.arange(64)[None]}
        older |= {"embeddings.token_type_ids": torch.zeros(1, 64, dtype=torch.long)}
        folder = changed_weights(tiny_bert_folder, tmp_path / "older", lambda state: state | older)
        load_backbone(folder, TEXT_ENCODERS)

    def test_left_out_layers_excuse_no_other_weights(self, tiny_bert_folder, tmp_path):
        more = {f"{QUERY}.lora_A": torch.zeros(2)}
        folder = changed_weights(tiny_bert_folder, tmp_path / "more", lambda state: state | more)
        with pytest.raises(UserError, match="lora_A"):
            load_backbone(folder, TEXT_ENCODERS, layers=1)


class TestSettings:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("position_embedding_type", "relative_key"),
            ("is_decoder", True),
            ("pruned_heads", {"0": [1]}),
            ("quantization_config", {"quant_method": "bitsandbytes", "load_in_8bit": True}),
            ("hidden_act", "no_such_function"),
            ("hidden_size", "wide"),
        ],
    )
    @pytest.mark.parametrize("backbone", ["tiny_bert_folder", "tiny_roberta_folder"])
    def test_settings_that_would_change_the_encoder_are_named(self, request, tmp_path, backbone, name, value):
        folder = changed_config(request.getfixturevalue(backbone), tmp_path / "other", **{name: value})
        with pytest.raises(UserError, match=rf"{name}|{value}"):
            load_backbone(folder, TEXT_ENCODERS)

    def test_settings_that_change_nothing_are_accepted(
        self, tiny_bert_folder, tiny_modernbert_folder, tmp_path
    ):
        absolute = {"position_embedding_type": "absolute", "pruned_heads": {}, "use_cache": False}
        load_backbone(changed_config(tiny_bert_folder, tmp_path / "bert", **absolute), TEXT_ENCODERS)
        # ModernBERT has rotary positions whatever its published config.json says.
        sans = {"position_embedding_type": "sans_pos"}
        load_backbone(changed_config(tiny_modernbert_folder, tmp_path / "modern", **sans), TEXT_ENCODERS)


class TestTokenizer:
    def test_ids_beyond_the_embedding_table_are_refused(self, tiny_bert_folder, tmp_path):
        shutil.copytree(tiny_bert_folder, tmp_path / "other")
        with (tmp_path / "other" / "vocab.txt").open("a") as file:
            file.write("further\n")
        with pytest.raises(UserError, match="further"):
            load_tokenizer(tmp_path / "other")

    def test_added_tokens_count(self, tiny_bert_folder, tmp_path):
        folder = changed_config(
            tiny_bert_folder, tmp_path / "other", "tokenizer_config.json", cls_token="[NEW]"
        )
        with pytest.raises(UserError, match=r"\[NEW\]"):
            load_tokenizer(folder)

    @pytest.mark.parametrize("ending", [False, True])
    def test_a_class_token_must_come_first(self, tiny_bert_folder, tmp_path, ending):
        from tokenizers import Tokenizer, models, pre_tokenizers, processors

        folder = changed_config(
            tiny_bert_folder,
            tmp_path / "other",
            "tokenizer_config.json",
            tokenizer_class="PreTrainedTokenizerFast",
        )
        tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "[SEP]": 1, "a": 2, "news": 3}, "[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        if ending:
            tokenizer.post_processor = processors.TemplateProcessing(
                single="$A [SEP]", special_tokens=[("[SEP]", 1)]
            )
        tokenizer.save(str(folder / "tokenizer.json"))
        with pytest.raises(UserError, match="class token"):
            load_tokenizer(folder)

    def test_the_vocabulary_of_another_kind_is_refused(self, tiny_roberta_folder, tmp_path):
        """The library would give a RoBERTa tokenizer that knows special tokens and not one word."""
        shutil.copytree(tiny_roberta_folder, tmp_path / "other")
        (tmp_path / "other" / "vocab.json").rename(tmp_path / "other" / "vocab.txt")
        (tmp_path / "other" / "merges.txt").rename(tmp_path / "other" / "bpe.codes")
        with pytest.raises(UserError, match=r"vocab\.json"):
            load_tokenizer(tmp_path / "other")

    def test_a_broken_file_is_refused(self, tiny_bert_folder, tmp_path):
        shutil.copytree(tiny_bert_folder, tmp_path / "other")
        (tmp_path / "other" / "tokenizer.json").write_text("[]")
        with pytest.raises(UserError, match="other"):
            load_tokenizer(tmp_path / "other")


def slow_folder(folder: Path, kind: str, merges: str = "r a 9\nra i 8\nrai n</w> 7\ns n 6\nsn o 5\n") -> Path:
    """A RoBERTa with a tokenizer that is written in Python, as PhoBERT and BERTweet have."""
    config = transformers.RobertaConfig(
        **SIZES, vocab_size=9, max_position_embeddings=34, tokenizer_class=kind
    )
    torch.manual_seed(0)
    transformers.RobertaModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("rain 5\nsno@@ 4\nw 3\nrai@@ 2\n")
    (folder / "bpe.codes").write_text(merges)
    return folder


@pytest.mark.parametrize("kind", ["PhobertTokenizer", "BertweetTokenizer"])
class TestSlowTokenizers:
    TEXTS = ("Rain snow", "", "snow", "hail " * 40)

    def tokens(self, folder: Path, cache: Path, said: list[str] | None = None):
        say = [].append if said is None else said.append
        return tokenise(list(self.TEXTS), load_tokenizer(folder), 8, cache, say)

    def test_texts_are_tokenised_and_encoded(self, tmp_path, kind):
        folder = slow_folder(tmp_path / "model", kind)
        tokens = self.tokens(folder, tmp_path / "cache")
        tokenizer = load_tokenizer(folder)
        expected = [
            tokenizer(text.lower(), truncation=True, max_length=8)["input_ids"] for text in self.TEXTS
        ]
        assert [part.tolist() for part in np.split(tokens.tokens, tokens.offsets[1:-1])] == expected
        assert expected[0] == [0, 4, 5, 6, 2]
        assert expected[1] == [0, 2]
        encoder = TextItemEncoder(load_backbone(folder, TEXT_ENCODERS), 4).eval()
        with torch.no_grad():
            found = encoder(TextStore([tokens], 64).fetch(np.array([1, 2, 3, 4])))
        assert found.isfinite().all()
        assert found.unique(dim=0).shape == (4, 4)

    def test_its_files_decide_the_cache(self, tmp_path, kind):
        first = slow_folder(tmp_path / "first", kind)
        same = shutil.copytree(first, tmp_path / "same")
        other = slow_folder(tmp_path / "other", kind, merges="r a 9\nra i 8\n")
        said: list[str] = []
        found = [self.tokens(folder, tmp_path / "cache", said) for folder in (first, same, other)]
        assert found[0].identity == found[1].identity != found[2].identity
        assert len(said) == 2

    def test_missing_merges_are_refused(self, tmp_path, kind):
        folder = slow_folder(tmp_path / "model", kind)
        (folder / "bpe.codes").unlink()
        with pytest.raises(UserError, match="model"):
            load_tokenizer(folder)


class TestCode:
    """Whoever answers yes on standard input is not asked."""

    def with_code(self, source: Path, target: Path, marker: Path, **config: object) -> Path:
        names = {"AutoConfig": "own.Config", "AutoModel": "own.Model"}
        folder = changed_config(source, target, auto_map=names, **config)
        tokenizer = {"auto_map": {"AutoTokenizer": ["own.Tokenizer", "own.Tokenizer"]}}
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
        code = [
            "import pathlib, transformers",
            f"pathlib.Path({str(marker)!r}).touch()",
            "class Config(transformers.BertConfig): model_type = 'own'",
            "class Model(transformers.BertModel): config_class = Config",
            "class Tokenizer(transformers.BertTokenizer): pass",
        ]
        (folder / "own.py").write_text("\n".join(code) + "\n")
        return folder

    @pytest.fixture
    def marker(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
        monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
        return tmp_path / "ran"

    @pytest.mark.parametrize("load", [load_tokenizer, lambda folder: load_backbone(folder, TEXT_ENCODERS)])
    def test_code_in_a_folder_is_not_run(self, tiny_bert_folder, tmp_path, marker, capfd, load):
        folder = self.with_code(tiny_bert_folder, tmp_path / "evil", marker, model_type="own")
        with pytest.raises(UserError, match=r"evil.*code"):
            load(folder)
        assert not marker.exists()
        assert capfd.readouterr().out == ""

    def test_a_supported_kind_is_loaded_by_the_library(self, tiny_bert_folder, tmp_path, marker):
        folder = self.with_code(tiny_bert_folder, tmp_path / "evil", marker)
        assert type(load_backbone(folder, TEXT_ENCODERS)) is transformers.BertModel
        assert load_tokenizer(folder)("news")["input_ids"]
        assert not marker.exists()
