# SPDX-License-Identifier: Apache-2.0
"""Activation checkpointing: the same loss and gradients, less kept; attention by plain products."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from gsv3d.lab.training.activations import checkpoint_activations, quick_attention
from gsv3d.lab.training.config import build
from gsv3d.lab.training.tasks import DecoderTask, MultiviewTask
from tests import tiny

CPU = torch.device("cpu")


def run(stage: str, checkpointed: bool) -> tuple[float, dict[str, torch.Tensor], int]:
    """Loss, gradients, and the bytes kept for the backward pass."""
    torch.manual_seed(0)
    orbits = [tiny.ball_orbit()]
    vae = build(tiny.CONFIG, "vae").eval()
    if stage == "multiview":
        modules = build(tiny.CONFIG, "unet"), build(tiny.CONFIG, "image_encoder")
        task = MultiviewTask(*modules, vae, orbits, 4, CPU)
    else:
        modules = build(tiny.CONFIG, "decoder"), build(tiny.CONFIG, "feature_encoder")
        task = DecoderTask(*modules, vae, orbits, 4, CPU)
        for block in modules[0].blocks:
            torch.nn.init.ones_(block.gate)
    task.modules.train()
    if checkpointed:
        checkpoint_activations(task.modules)
    kept = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    batch = task.source.draw(1, 0, 0.0)
    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss, _ = task.loss(batch)
    loss.backward()
    gradients = {n: p.grad for n, p in task.modules.named_parameters() if p.grad is not None}
    return float(loss.detach()), gradients, kept


@pytest.mark.parametrize("stage", ["multiview", "decoder"])
def test_checkpointing_changes_nothing_but_what_is_kept(stage: str) -> None:
    loss, gradients, kept = run(stage, checkpointed=False)
    again, others, less = run(stage, checkpointed=True)
    assert again == pytest.approx(loss, rel=1e-5)
    assert gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        assert torch.allclose(others[name], gradient, rtol=1e-3, atol=1e-5), name
    assert less < 0.7 * kept


def test_plain_attention_is_attention() -> None:
    q, k, v = torch.randn(3, 2, 4, 9, 16).unbind(0)
    expected = torch.softmax(q @ k.transpose(-1, -2) / 4, dim=-1) @ v
    with quick_attention(CPU):
        assert torch.allclose(F.scaled_dot_product_attention(q, k, v), expected, atol=1e-5)
