# SPDX-License-Identifier: Apache-2.0
"""The loop on a card: bfloat16 and compilation, and steps that wait for nothing."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest
import torch

from gsv3d.lab.training.batches import to_device
from gsv3d.lab.training.loop import Schedule, Trainer
from gsv3d.lab.training.machine import matrix_rate
from gsv3d.lab.training.sources import OrbitSource, ViewSource
from gsv3d.lab.training.tasks import (
    AutoencoderSettings,
    AutoencoderTask,
    MultiviewSettings,
    MultiviewTask,
)
from tests import tiny
from tests.gsv3d.lab.training.least_squares import losses
from tests.gsv3d.lab.training.ray_traced import ellipsoid_orbit

pytestmark = pytest.mark.gpu
CARD = torch.device("cuda", 0)


def multiview(where: str) -> MultiviewTask:
    torch.manual_seed(0)
    orbits, kept = tiny.bank_of(ellipsoid_orbit()), where == "latents in memory"
    settings = MultiviewSettings(latents="memory" if kept else "none")
    orbits = orbits if kept else orbits.copy_to(CARD)
    return MultiviewTask(tiny.setup(orbits, settings, device=CARD))


@pytest.mark.parametrize("where", ["latents in memory", "orbits on the card"])
def test_the_host_does_not_wait_for_the_card(where: str, tmp_path: Path, monkeypatch) -> None:
    """Between two writes of the log the host runs ahead of the card."""
    step = Trainer._step

    def watched(self: Trainer) -> dict:
        # Kernels are chosen and memory is got in the first steps.
        torch.cuda.set_sync_debug_mode("error" if self.step >= 3 else "default")
        try:
            return step(self)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Trainer, "_step", watched)
    plan = Schedule(steps=8, batch_size=4, bf16=True, log_every=8, save_every=8)
    Trainer(multiview(where), plan, tmp_path, 0, CARD).run()
    assert all(math.isfinite(loss) for loss in losses(tmp_path))


@pytest.mark.slow
def test_compiled_and_plain_networks_train_alike(tmp_path: Path) -> None:
    curves = []
    for compiled in (False, True):
        torch.manual_seed(0)
        orbits = tiny.bank_of(ellipsoid_orbit(novel=0))
        task = AutoencoderTask(tiny.setup(orbits, AutoencoderSettings(), device=CARD))
        plan = Schedule(steps=12, batch_size=8, compile=compiled, warmup=1)
        output = tmp_path / str(compiled)
        Trainer(task, plan, output, 0, CARD).run()
        curves.append(losses(output))
        assert (output / "vae" / "config.json").is_file()
    assert curves[1] == pytest.approx(curves[0], rel=0.02)


def test_a_batch_made_by_the_card_is_the_hosts() -> None:
    orbits = tiny.bank_of(ellipsoid_orbit(novel=3), ellipsoid_orbit(novel=3, seed=1))
    resident = orbits.copy_to(CARD)
    for source in (
        partial(OrbitSource, num_frames=4, channels=4),
        partial(ViewSource, num_frames=4, num_novel=2),
    ):
        made = to_device(source(resident).draw(6, 1), CARD)
        host = source(orbits).draw(6, 1)
        for name in ("pose", "reference", "pictures") if source.func is OrbitSource else (
            "rgba", "depth", "novel_rgba", "viewmats", "K",
        ):  # fmt: skip
            torch.testing.assert_close(
                getattr(made, name).cpu(), getattr(host, name), rtol=0, atol=2e-3
            )


def test_the_matrix_rate_of_a_card_is_that_of_a_card() -> None:
    assert matrix_rate(CARD, True) > 5e12
