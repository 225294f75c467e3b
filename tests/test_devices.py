"""Device placement without a GPU: forward passes on fake CUDA tensors, which refuse to mix with the CPU's.

They have no values either, so what makes the CPU wait for the GPU, such as selecting with a mask, fails.
"""

import errno
import os
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from adapter_models import BACKBONES, DIM, LENGTH, N_ITEMS, PRE_NORM, batch_for, is_image, model_on, store_for
from conftest import interactions_of, random_sequences
from torch import nn
from torch._subclasses import FakeTensorMode  # the only way to have CUDA tensors without a GPU
from transformers import PreTrainedModel
from trees import TextSourceSettings

from adapter4rec.adapters.attaching import add_adapters
from adapter4rec.adapters.registry import FAMILIES
from adapter4rec.data.batches import TrainingSet
from adapter4rec.data.settings import TextSettings
from adapter4rec.models.losses.settings import LossSettings
from adapter4rec.models.registry import LOSSES, OBJECTIVES, USER_ENCODERS, registered
from adapter4rec.models.transrec import TransRec
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.process_group import prepare_cuda, process_group

CUDA = torch.device("cuda")
CANNOT_ATTACH = {("tiny_modernbert_folder", "bitfit")} | {(n, "pfeiffer_after_layernorm") for n in PRE_NORM}


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(PreTrainedModel, "init_weights", lambda _: None)  # some draw until a value fits
    with FakeTensorMode() as mode:
        yield mode


def rebuilt(model, *further, user_encoder="transformer"):
    """A model of the same shapes on the fake GPU."""
    encoder = model.item_encoder
    with CUDA:
        backbone = type(encoder.backbone)(encoder.backbone.config)
        images = [encoder.images_at_once] if is_image(model) else []
        users = registered(USER_ENCODERS, user_encoder).from_settings(
            TextSourceSettings(users="-", items="-", embedding_dim=DIM, max_seq_len=LENGTH)
        )
        return TransRec(type(encoder)(backbone, DIM, *images), users, *further).train()


def loss_on(fake, model, batch):
    return model(batch.changed(lambda tensor: fake.from_tensor(tensor).to(CUDA)))


@pytest.mark.parametrize("objective", ["sasrec", "cpc"])
@pytest.mark.parametrize("user_encoder", [name for name in USER_ENCODERS if name != "gru4rec"])  # cuDNN's
def test_each_user_encoder_stays_on_the_gpu(request, tiny_bert_folder, user_encoder, objective):
    small = model_on(tiny_bert_folder)
    batch = batch_for(small)
    fake = request.getfixturevalue("fake")
    assert loss_on(fake, rebuilt(small, objective, user_encoder=user_encoder), batch).shape == ()


@pytest.mark.parametrize("objective", ["sasrec", "cpc"])
@pytest.mark.parametrize("family", [None, *(family for family in FAMILIES if family != "peft")])
@pytest.mark.parametrize("name", BACKBONES)
def test_a_forward_pass_stays_on_the_gpu(request, monkeypatch, name, family, objective):
    if (name, family) in CANNOT_ATTACH:
        pytest.skip("does not attach")
    small = model_on(request.getfixturevalue(name))
    batch = batch_for(small)
    fake = request.getfixturevalue("fake")
    model = rebuilt(small, objective)
    if family is not None:
        with CUDA, monkeypatch.context() as patch:
            patch.setattr(nn.Module, "to", lambda module, **_: module)  # fake tensors cannot be moved
            add_adapters(model, FAMILIES[family]())
    loss = loss_on(fake, model, batch)
    assert loss.device.type == "cuda"
    assert loss.shape == ()


@pytest.mark.parametrize("objective", ["sasrec", "cpc"])
@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_stays_on_the_gpu(request, tiny_bert_folder, name, objective):
    small = model_on(tiny_bert_folder)
    negatives = None if name in ("in_batch", "full") else 4
    criterion = registered(LOSSES, name)(LossSettings(loss=name, negatives=negatives), N_ITEMS)
    sequences = random_sequences(np.random.default_rng(0), 8, N_ITEMS, LENGTH)
    examples = TrainingSet(
        interactions_of(sequences, N_ITEMS, LENGTH),
        store_for(small),
        batch_size=8,
        seed=0,
        sampling=replace(criterion.sampling, positions=OBJECTIVES[objective]),
    )
    batch = examples[1, 0]
    fake = request.getfixturevalue("fake")
    loss = loss_on(fake, rebuilt(small, objective, criterion), batch)
    assert loss.device.type == "cuda"


def test_out_of_memory_names_the_settings_to_lower():
    def allocation():
        torch.empty(1 << 60)  # of PyTorch's allocator on the host

    def fails(error):
        raise error

    options = (
        "--batch_size{}, .*--accumulation_steps.*--recompute.*--precision.*--tokens_at_once.*--images_at"
    )
    for failing, place in (
        (allocation, "the host"),
        (partial(fails, MemoryError()), "the host"),
        (partial(fails, OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))), "the host"),
        (partial(fails, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")), "cpu"),
        (partial(fails, RuntimeError("CUDA error: out of memory")), "cpu"),
        (partial(fails, RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling")), "cpu"),
    ):
        lowered = options.format(" or --workers" if place == "the host" else "")
        with (
            pytest.raises(UserError, match=rf"(?s)out of memory on {place}: .*{lowered}"),
            process_group("cpu"),
        ):
            failing()
    for other in (RuntimeError("shapes do not match"), OSError(errno.ENOSPC, "No space left")):
        with pytest.raises(type(other), match=str(other.args[-1])), process_group("cpu"):
            raise other


def test_a_gpu_computes_in_float32_without_plans_for_each_shape(monkeypatch):
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    cudnn, before = torch.backends.cudnn, torch.backends.cuda.cudnn_sdp_enabled()
    formats = cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision
    try:
        prepare_cuda(torch.device("cuda", 0))
        assert (cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision) == ("ieee", "ieee")
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision = formats
        torch.backends.cuda.enable_cudnn_sdp(before)


def test_a_gpu_reads_more_tokens_at_once_unless_told_otherwise():
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    plain, told = TextSettings(), TextSettings(tokens_at_once=7)
    assert [plain.tokens_on(cpu), plain.tokens_on(gpu), told.tokens_on(gpu)] == [4096, 16_384, 7]
