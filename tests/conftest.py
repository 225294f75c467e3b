"""What several test files share: small Hugging Face folders, domains, and the data for development."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

# The models are so small that a second thread of torch waits more than it works, on a busy machine for long.
# Tests of several threads ask for them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

from adapter4rec.data.interactions import Interactions
from adapter4rec.utils.process_group import Process

REPOSITORY = Path(__file__).resolve().parent.parent

_WORDS = [
    "the",
    "a",
    "an",
    "of",
    "in",
    "on",
    "for",
    "to",
    "and",
    "is",
    "news",
    "new",
    "old",
    "red",
    "blue",
    "green",
    "big",
    "small",
    "house",
    "garden",
    "river",
    "city",
    "football",
    "match",
    "players",
    "win",
    "loss",
    "price",
    "oil",
    "market",
    "snow",
    "storm",
    "summer",
    "winter",
    "teacher",
    "school",
    "music",
    "guitar",
    "string",
    "light",
    "##s",
    "##ing",
    "##ed",
    "##er",
    "##ly",
    "##light",
    "'",
    '"',
    ",",
    ".",
    "!",
    "?",
    "&",
    ";",
    "-",
    "quot",
    "1",
    "2",
    "3",
    "##0",
    "##1",
    "na",
    "nan",
    "null",
]
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def write_domain(
    folder: Path, users: Mapping[str, Sequence[str]], items: Mapping[str, str | Sequence[str]]
) -> tuple[Path, Path]:
    """Write a domain's two files.

    Args:
        folder: where they are put; made if it is not there.
        users: the clicks of each user, item names in order.
        items: of each item its title, or its texts (title, abstract, body; none for bare names).

    Returns:
        The paths of ``users.tsv`` and ``items.tsv``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    users_path, items_path = folder / "users.tsv", folder / "items.tsv"
    columns = {name: [texts] if isinstance(texts, str) else list(texts) for name, texts in items.items()}
    users_text = "".join(f"{name}\t{' '.join(clicks)}\n" for name, clicks in users.items())
    items_text = "".join("\t".join([name, *texts]) + "\n" for name, texts in columns.items())
    users_path.write_bytes(users_text.encode("utf-8"))
    items_path.write_bytes(items_text.encode("utf-8"))
    return users_path, items_path


def interactions_of(sequences: Sequence[Sequence[int]], n_items: int, max_seq_len: int) -> Interactions:
    """Interactions of given kept sequences (4 to ``max_seq_len`` + 3 item numbers each)."""
    assert all(4 <= len(sequence) <= max_seq_len + 3 for sequence in sequences)
    clicks = [click for sequence in sequences for click in sequence]
    lengths = [len(sequence) for sequence in sequences]
    return Interactions(
        clicks=np.array(clicks, np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        user_names=[f"u{user}" for user in range(len(sequences))],
        item_names=[f"i{item}" for item in range(1, n_items + 1)],
        item_rows=np.arange(n_items),
        max_seq_len=max_seq_len,
        dropped_users=0,
        identity="made for a test",
    )


def random_sequences(
    chance: np.random.Generator, users: int, n_items: int, max_seq_len: int
) -> list[list[int]]:
    """Kept sequences of all lengths, with many repeats."""
    lengths = chance.integers(4, max_seq_len + 4, users)
    return [chance.integers(1, n_items + 1, length).tolist() for length in lengths]


@pytest.fixture
def one_process() -> Process:
    """The only process of a run, on the CPU."""
    import torch

    return Process(rank=0, world_size=1, device=torch.device("cpu"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data for development; its README tells the counts."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no shared/data beside the repository")
    return folder


def _bert_config():
    from transformers import BertConfig

    return BertConfig(
        vocab_size=len(_bert_vocabulary()),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )


def _bert_vocabulary() -> list[str]:
    letters = [*_LETTERS, *(f"##{letter}" for letter in _LETTERS)]
    return list(dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS, *letters]))


@pytest.fixture(scope="session")
def tiny_tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder with a lower-casing WordPiece tokenizer of real words, and no weights."""
    folder = tmp_path_factory.mktemp("tiny_tokenizer")
    _bert_config().save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(_bert_vocabulary()) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder with a BERT of 2 layers and width 32, random weights, and its tokenizer."""
    import torch
    from transformers import BertModel

    folder = tmp_path_factory.mktemp("tiny_bert")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(_bert_config()).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(_bert_vocabulary()) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_roberta_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder with a RoBERTa of 2 layers and width 32, random weights, byte-level BPE."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer
    from transformers import RobertaConfig, RobertaModel

    folder = tmp_path_factory.mktemp("tiny_roberta")
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    trainer = BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(_WORDS)] * 3, trainer)
    tokenizer.model.save(str(folder))
    config = RobertaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=66,
        type_vocab_size=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        RobertaModel(config).save_pretrained(folder)
    return folder


_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_WIDE = {"intermediate_size": 64}
_PATCHES = {"image_size": 16, "patch_size": 4}


def _tiny_model(kind: str):
    import transformers

    if kind == "clip":  # a folder with both towers, as CLIP is published
        special = {"bos_token_id": 1, "eos_token_id": 2}
        text = transformers.CLIPTextConfig(**_SIZES, **_WIDE, vocab_size=60, **special)
        vision = transformers.CLIPVisionConfig(**_SIZES, **_WIDE, **_PATCHES)
        return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision))
    if kind == "dinov2":
        # Its scales of 1 are kept at less, so that they are seen to be applied.
        config = transformers.Dinov2Config(**_SIZES, **_PATCHES, mlp_ratio=2, layerscale_value=0.7)
        return transformers.Dinov2Model(config)
    name = {"vit": "ViT", "vit_mae": "ViTMAE"}[kind]
    config = getattr(transformers, f"{name}Config")(**_SIZES, **_WIDE, **_PATCHES)
    return getattr(transformers, f"{name}Model")(config)


def _tiny_image_folder(folder: Path, kind: str) -> Path:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _tiny_model(kind)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # a fresh model's are zero, which would hide what they do
                torch.nn.init.normal_(parameter, std=0.1)
        model.save_pretrained(folder)
    return folder


def _tiny_words_folder(folder: Path, kind: str) -> Path:
    """A text encoder of another kind with BERT's tokenizer."""
    import torch
    import transformers

    tokens = {"vocab_size": len(_bert_vocabulary()), "max_position_embeddings": 64, "pad_token_id": 0}
    special = {"bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "modernbert":
            config = transformers.ModernBertConfig(**_SIZES, **_WIDE, **tokens, **special, local_attention=8)
            transformers.ModernBertModel(config).save_pretrained(folder)
        else:
            config = transformers.XLMRobertaConfig(**_SIZES, **_WIDE, **tokens)
            transformers.XLMRobertaModel(config).save_pretrained(folder)
    words = {word: number for number, word in enumerate(_bert_vocabulary())}
    transformers.BertTokenizer(vocab=words).save_pretrained(folder)
    return folder


def _folder_fixture(name: str, write: Callable[[Path, str], Path], kind: str) -> Callable:
    """A Hugging Face folder with an encoder of 2 layers and width 32 (images of 16 x 16), random weights."""

    @pytest.fixture(scope="session", name=name)
    def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
        return write(tmp_path_factory.mktemp(name.removesuffix("_folder")), kind)

    return folder


tiny_vit_folder = _folder_fixture("tiny_vit_folder", _tiny_image_folder, "vit")
tiny_mae_folder = _folder_fixture("tiny_mae_folder", _tiny_image_folder, "vit_mae")
tiny_dinov2_folder = _folder_fixture("tiny_dinov2_folder", _tiny_image_folder, "dinov2")
tiny_clip_folder = _folder_fixture("tiny_clip_folder", _tiny_image_folder, "clip")  # both towers
tiny_xlm_roberta_folder = _folder_fixture("tiny_xlm_roberta_folder", _tiny_words_folder, "xlm-roberta")
tiny_modernbert_folder = _folder_fixture("tiny_modernbert_folder", _tiny_words_folder, "modernbert")


@pytest.fixture
def folder(request: pytest.FixtureRequest, pair: tuple[str, str]) -> Path:
    """The backbone of a pair of backbone and adapter family."""
    return request.getfixturevalue(pair[0])


class RandomImages:
    """A content store of random pixels."""

    def __init__(self, n_items: int, size: int) -> None:
        import torch

        generator = torch.Generator().manual_seed(0)
        shape = (n_items, size, size, 3)
        self.pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

    def fetch(self, items: np.ndarray):
        """Pixels of ``items``."""
        from adapter4rec.data.images.store import Pixels

        return Pixels(self.pixels[items - 1])

    def costs(self, items: np.ndarray) -> np.ndarray:
        """1 an item."""
        return np.ones_like(items)


SECONDS = 20


@pytest.fixture
def no_hang():
    """Fail a test that takes longer than ``SECONDS``, as a reader that hangs does."""

    def ended(*_):
        raise AssertionError(f"not read within {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, ended)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
