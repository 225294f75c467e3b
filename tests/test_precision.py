"""Half precision with a gradient scaler, on the CPU; a run refuses fp16 there."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from adapter_models import DIM, LENGTH, N_ITEMS, batch_for, model_on, snapshot

from adapter4rec.adapters.attaching import add_adapters
from adapter4rec.adapters.houlsby import HoulsbyConfig
from adapter4rec.data.content import IdStore
from adapter4rec.models.item_encoder import IdItemEncoder
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.user_encoders.transformer import TransformerUserEncoder
from adapter4rec.training.optimizer import make_optimizer
from adapter4rec.training.setup import TrainingSetup
from adapter4rec.training.step import backward, train_step
from adapter4rec.utils.precision import Precision
from adapter4rec.utils.process_group import Process

CPU = torch.device("cpu")


@pytest.fixture
def model(tiny_bert_folder):
    model = model_on(tiny_bert_folder).eval()
    add_adapters(model, HoulsbyConfig(item_bottleneck=4, user_bottleneck=4))
    return model


def setup_of(model, dtype, scale=2.0**16):
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = make_optimizer(model, dict.fromkeys(model.parameter_groups(), 1e-3))
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=dtype == torch.float16)
    precision = Precision(str(dtype), dtype, "cpu")
    return TrainingSetup(model, trained, optimizer, scaler, precision, None, Process(0, 1, CPU))


def losses_of(setup, batch, steps):
    with setup.precision.frozen_weights(setup.model.item_encoder):
        return [train_step(setup, batch, (1, 1, step)) for step in range(steps)]


def test_steps_in_fp16_with_a_scaler_are_those_of_fp32_up_to_rounding(model, tiny_bert_folder):
    batch = batch_for(model)
    before = snapshot(model)
    expected = losses_of(setup_of(model, torch.float32), batch, 5)
    model.load_state_dict(before)
    assert losses_of(setup_of(model, torch.float16), batch, 5) == pytest.approx(expected, rel=2e-3)
    assert expected[-1] < expected[0]


def test_a_gradient_that_overflows_in_fp16_is_skipped_and_the_scale_lowered(model):
    setup, batch, before = setup_of(model, torch.float16, scale=2.0**40), batch_for(model), snapshot(model)
    losses = losses_of(setup, batch, 1)
    assert all(map(torch.isfinite, torch.tensor(losses)))
    assert all(torch.equal(before[name], tensor) for name, tensor in snapshot(model).items())
    assert setup.scaler.get_scale() == 2.0**39
    losses_of(setup, batch, 40)
    assert any(not torch.equal(before[name], tensor) for name, tensor in snapshot(model).items())


def test_user_encoder_and_loss_are_computed_in_fp32_also_in_the_backward_pass(model):
    """Items of an id tower have no other number format, so nothing else may differ."""
    batch = batch_for(model)
    batch = replace(batch, contents=[IdStore().fetch(np.asarray(batch.items))])
    model = TransRec(IdItemEncoder(N_ITEMS, DIM), TransformerUserEncoder(DIM, LENGTH, 2, 2, 0.0), "sasrec")
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        model.zero_grad()
        backward(setup_of(model, dtype), batch, (1, 1, 1))
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def test_a_gradient_that_stays_infinite_in_fp16_ends_the_run(model):
    setup, before = setup_of(model, torch.float16), snapshot(model)
    setup.parameters[0].register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(FloatingPointError, match="without loss scaling"):
        losses_of(setup, batch_for(model), 40)
    assert all(torch.equal(before[name], tensor) for name, tensor in snapshot(model).items())
