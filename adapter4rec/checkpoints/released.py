"""Reading checkpoints of the code released with the paper, and renaming their parameters.

A released file contains ``model_state_dict`` and the states of optimizer and random number generators. It is
read with ``weights_only=True``, so no code is executed. ``python -m adapter4rec.convert`` converts it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from adapter4rec.adapters.attaching import copied_parameters
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.weights import load_into, read_tensors

_UNUSED = re.compile(r"(^|\.)(pooler\..*|position_ids|token_type_ids)$")
"""Poolers and index buffers, which the model does not use."""

_LAYER = r"^item_encoder\.backbone\.(?:encoder\.layer|layers)\.(\d+)\."
_VIT_LAYER = r"^(item_encoder\.backbone\.layers\.\d+)\."
_ITEM, _USER = r"adapters.item.layers.\1.", r"adapters.user.layers.\1."
_PROMPT = "adapters.item.vectors"
_RENAMED = (
    (r"^model\.", ""),
    (r"^.*phm_rule$", "adapters.shared.rule"),
    (r"^bert_encoder\.text_encoders\.\w+\.(bert_model\.){1,2}", "item_encoder.backbone."),
    (r"^bert_encoder\.text_encoders\.\w+\.fc\.", "item_encoder.head."),
    (r"^cv_encoder\.(image_net\.classifier|cv_proj)\.", "item_encoder.head."),
    (r"^cv_encoder\.image_net\.(vit\.)?encoder\.(vit_encoder\.)?layer\.", "item_encoder.backbone.layers."),
    (r"^cv_encoder\.image_net\.(vit\.)?", "item_encoder.backbone."),
    (r"^user_encoder\.transformer_encoder\.transformer_blocks\.adapter_list\.", "adapters.user.chain."),
    (r"^user_encoder\.transformer_encoder\.transformer_blocks\.com_dense2\.", "adapters.user.join."),
    (r"^item_encoder\.backbone\.(encoder\.)?(vit_encoder|bert)_adapter_list\.", "adapters.item.chain."),
    (r"^item_encoder\.backbone\.(encoder\.)?com_dense\.", "adapters.item.join."),
    (r"^(adapters\..*)\.transformer_blocks\.", r"\1.blocks."),
    (r"^(adapters\..*)\.(down|up)_project\.", r"\1.\2."),
    (r"^item_encoder\..*\.(word_embeddings\.learned_embedding|Prompt_Tokens)$", _PROMPT),
    (r"^(item_encoder\.backbone\.embeddings\.word_embeddings)\.wte\.", r"\1."),
    (r"^(item_encoder\.backbone\.embeddings)\.wte\.", r"\1."),
    (r"^user_encoder\.transformer_encoder\.(transformer_blocks\.){1,2}", "user_encoder.blocks."),
    (r"^user_encoder\.transformer_encoder\.", "user_encoder."),
    (r"^(user_encoder\.blocks\.\d+)\.transformer_block\.", r"\1."),
    (r"\.multi_head_attention\.fc\.", ".attention.output."),
    (r"\.multi_head_attention\.", ".attention."),
    # Adapters wrap a sublayer's output module; the wrapped module keeps its name inside.
    (r"\.output\.self_output\.", ".output."),
    (_LAYER + r"attention\.output\.adapter\.", _ITEM + "attention."),
    (_LAYER + r"output\.adapter\.", _ITEM + "feed_forward."),
    (_LAYER + r"output\.LN\.", _ITEM + "feed_forward.norm."),
    (r"^user_encoder\.blocks\.(\d+)\.adapter1\.", _USER + "attention."),
    (r"^user_encoder\.blocks\.(\d+)\.adapter2?\.", _USER + "feed_forward."),
    (r"^user_encoder\.blocks\.(\d+)\.LN\.", _USER + "feed_forward.norm."),
    (r"^(adapters\..*)\.fc_(down|up)\.", r"\1.\2."),
    (r"^(adapters\..*)\.(down|up)_sampler\.W_", r"\1.\2."),
    (r"^(adapters\..*)\.(down|up)_sampler\.b$", r"\1.\2.bias"),
    # In released checkpoints, LoRA's matrices are parameters of the adapted projection.
    (_LAYER + r"attention\.(?:self|attention)\.(query|value)\.lora_", _ITEM + r"\2.lora_"),
    (r"^user_encoder\.blocks\.(\d+)\.attention\.w_Q\.lora_", _USER + "query.lora_"),
    (r"^user_encoder\.blocks\.(\d+)\.attention\.w_V\.lora_", _USER + "value.lora_"),
    (r"\.attention\.w_Q\.", ".attention.query."),
    (r"\.attention\.w_K\.", ".attention.key."),
    (r"\.attention\.w_V\.", ".attention.value."),
    (r"\.feed_forward\.w_1\.", ".feed_forward.up."),
    (r"\.feed_forward\.w_2\.", ".feed_forward.down."),
    # Submodules of ViT and ViTMAE were renamed in transformers 5; those of BERT and RoBERTa were not.
    (_VIT_LAYER + r"attention\.attention\.query\.", r"\1.attention.q_proj."),
    (_VIT_LAYER + r"attention\.attention\.key\.", r"\1.attention.k_proj."),
    (_VIT_LAYER + r"attention\.attention\.value\.", r"\1.attention.v_proj."),
    (_VIT_LAYER + r"attention\.output\.dense\.", r"\1.attention.o_proj."),
    (_VIT_LAYER + r"intermediate\.dense\.", r"\1.mlp.fc1."),
    (_VIT_LAYER + r"output\.dense\.", r"\1.mlp.fc2."),
)


def renamed(name: str) -> str | None:
    """The name of a released parameter in this project; None if the model does not use it."""
    if _UNUSED.search(name):
        return None
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def converted(released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a released ``model_state_dict`` to the parameter names of this project."""
    state = {new: tensor for name, tensor in released.items() if (new := renamed(name)) is not None}
    if _PROMPT in state and state[_PROMPT].ndim:
        state[_PROMPT] = state[_PROMPT].reshape(-1, state[_PROMPT].shape[-1])  # [1, n, h] in image models
    return state


def is_text(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a state dict (by the names of this project) is of a text model; otherwise of an image model."""
    return "item_encoder.backbone.embeddings.word_embeddings.weight" in tensors


def read_released(path: Path) -> dict[str, Tensor]:
    """Read a released checkpoint and rename its parameters; only tensors are unpickled.

    Returns:
        Tensors by the names of this project.

    Raises:
        UserError: the file is missing or damaged, contains arbitrary objects, or no ``model_state_dict``.
    """
    return converted(read_tensors(path, "model_state_dict"))


def load_released_target(model: TransRec, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Load a released checkpoint of a target domain, with source model and adapters, into a model with both.

    The released code trains some parameters in place (layer norms, the item head, with LoRA whole
    projections), of which adapters have copies here. As the file does not have the original values, the
    original parameters get the trained values, too.

    Args:
        model: with adapters.
        tensors: by the names of this project (see :func:`read_released`).
        source: path of the file, for error messages.

    Raises:
        UserError: the tensors do not match the model; the message lists the differences.
    """
    own = model.state_dict()
    state = dict(tensors)
    for original, copy in copied_parameters(model).items():
        if original in state:
            state[copy] = state[original] if original in own else state.pop(original)
    load_into(model, state, source)
