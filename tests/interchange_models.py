"""Tiny Hugging Face encoders of every kind, what they compute, and adapters that are not at their start."""

import torch
from transformers import AutoModel, CLIPVisionModel

from adapter4rec.adapters.attaching import add_adapters

FOLDERS = ("tiny_bert_folder", "tiny_roberta_folder", "tiny_vit_folder", "tiny_mae_folder")
"""Fixtures that give an encoder's folder."""

_OTHERS = {
    "xlm-roberta": "tiny_xlm_roberta_folder",
    "modernbert": "tiny_modernbert_folder",
    "dinov2": "tiny_dinov2_folder",
    "clip_vision_model": "tiny_clip_folder",
}


def maker_of(request, name):
    """A function that gives the same encoder anew, by a fixture's name or a model type."""

    def make():
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            encoder = _from_folder(request, _OTHERS.get(name, name))
            for parameter in encoder.parameters():  # a fresh encoder's attention is all but even
                parameter.mul_(5.0).add_(torch.randn_like(parameter) * 0.02)
        return encoder.eval()

    return make


def _from_folder(request, name):
    options = {"mask_ratio": 0.0} if "mae" in name else {}
    kind = CLIPVisionModel if "clip" in name else AutoModel
    return kind.from_pretrained(request.getfixturevalue(name), **options)


def states(encoder):
    """The last states of an encoder that may be inside another model, on fixed content."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        if encoder.config.model_type in ("bert", "roberta", "xlm-roberta", "modernbert"):
            words = torch.randint(5, 60, (3, 7), generator=generator)
            mask = torch.tensor([[1] * 7, [1] * 5 + [0] * 2, [1] * 3 + [0] * 4])
            return encoder(input_ids=words, attention_mask=mask).last_hidden_state
        pixels = torch.randn(3, 3, 16, 16, generator=generator)
        noise = {"noise": torch.arange(16.0).expand(3, -1)} if encoder.config.model_type == "vit_mae" else {}
        return encoder(pixel_values=pixels, **noise).last_hidden_state


def adapted(model, config):
    """``model`` with adapters that were moved away from their start."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(4)
        for parameter in add_adapters(model, config).parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def assert_equal_states(first, second):
    """Both are the same to 1e-5."""
    assert (first - second).abs().max() < 1e-5
