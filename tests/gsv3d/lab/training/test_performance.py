# SPDX-License-Identifier: Apache-2.0
"""Activation checkpointing gives the same gradients and keeps less; freed memory is kept."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from gsv3d.lab.training.config import build
from gsv3d.lab.training.loop import Trainer
from gsv3d.lab.training.performance import (
    checkpoint_activations,
    keep_freed_memory,
    quick_attention,
)
from gsv3d.lab.training.schedule import Schedule
from gsv3d.lab.training.tasks import DecoderTask, DistillTask, MultiviewTask
from tests import tiny

CPU = torch.device("cpu")


def run(stage: str, checkpointed: bool) -> tuple[float, dict[str, torch.Tensor], int]:
    """Loss, gradients, and the bytes kept for the backward pass."""
    torch.manual_seed(0)
    orbits = tiny.bank_of(tiny.ball_orbit())
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


def test_a_frozen_decoder_that_gradients_flow_through_is_checkpointed_too(tmp_path) -> None:
    def kept_by_the_decoder(checkpointing: bool) -> int:
        torch.manual_seed(0)
        names = ("unet", "image_encoder", "decoder", "feature_encoder", "vae")
        modules = [build(tiny.CONFIG, name) for name in names]
        task = DistillTask(
            *modules, tiny.bank_of(tiny.ball_orbit()), 4, CPU, train_decoder=False, lora_rank=0,
            drop_condition=0.0, gate_full=1e8, gate_none=1e9,
        )  # fmt: skip
        inside, kept = False, 0

        def step(into: bool) -> None:
            nonlocal inside
            inside = into

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal kept
            kept += tensor.nbytes if inside else 0
            return tensor

        task.decoder.register_forward_pre_hook(lambda *_: step(True))
        task.decoder.register_forward_hook(lambda *_: step(False))
        plan = Schedule(steps=1, batch_size=1, checkpointing=checkpointing)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            Trainer(task, plan, tmp_path / str(checkpointing), 0, CPU).run()
        return kept

    assert 0 < kept_by_the_decoder(True) < 0.7 * kept_by_the_decoder(False)


def test_plain_attention_is_attention() -> None:
    q, k, v = torch.randn(3, 2, 4, 9, 16).unbind(0)
    expected = torch.softmax(q @ k.transpose(-1, -2) / 4, dim=-1) @ v
    with quick_attention(CPU):
        assert torch.allclose(F.scaled_dot_product_attention(q, k, v), expected, atol=1e-5)


COUNTED = """
import resource, sys
import torch
from gsv3d.lab.training.performance import keep_freed_memory

def pages():
    def twice():
        for _ in range(10):
            torch.empty(2**24).fill_(1.0)  # 64 MiB
    twice()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    twice()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

torch.set_num_threads(1)
plain, before = pages(), held()
with keep_freed_memory() as kept:
    assert kept
    inside, during = pages(), held()
print(plain, inside, before, during, held())
"""


@pytest.mark.skipif(
    not (sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")),
    reason="glibc alone has the setting",
)
def test_freed_arrays_are_not_brought_again() -> None:
    # A process of its own, in which nothing else was allocated before.
    command = [sys.executable, "-c", COUNTED]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    plain, kept, before, during, left = map(int, done.stdout.split())
    assert plain > 1000
    assert kept < plain / 20
    # What was kept goes back at the end; 64 MiB are 16,384 pages of 4 KiB.
    assert during > before + 12_000
    assert left < before + 4_000


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_other_systems_are_left_as_they_are(monkeypatch, platform: str) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", None)  # not even asked
    with keep_freed_memory() as kept:
        assert kept is False
