# SPDX-License-Identifier: Apache-2.0
"""Preparing batches: a thread on one core, and workers that know how far the run is."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from gsv3d.lab.training import loop
from gsv3d.lab.training.batches import AHEAD, Feed, Plan
from gsv3d.lab.training.loop import Trainer
from gsv3d.lab.training.sources import OrbitBatch, OrbitSource
from tests import tiny
from tests.gsv3d.lab.training.least_squares import LeastSquares, schedule
from tests.gsv3d.lab.training.ray_traced import ellipsoid_orbit

IN_FLIGHT = 2 * AHEAD + 1
"""Batches of one worker that may be asked for before the one that the loop waits for."""


@dataclass
class Threads:
    """A source whose batches tell how many threads their maker computes with."""

    def draw(self, size: int, seed: int, progress: float = 0.0) -> int:
        return torch.get_num_threads()


def test_batches_are_prepared_on_one_core_and_all_others_keep_theirs() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        plan = Plan(Threads(), size=1, seed=0, steps=4, parts=1, processes=1, process=0)
        feed = Feed(plan, 0, 0, torch.device("cpu"))
        assert [feed.next() for _ in range(4)] == [1, 1, 1, 1]
        found = [torch.get_num_threads()]
        later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        later.start()
        later.join()
        feed.close()
        assert found == [3, 3]
    finally:
        torch.set_num_threads(before)


@dataclass
class Told:
    """A source whose batches are the progress that it is told."""

    def draw(self, size: int, seed: int, progress: float) -> float:
        return progress


def test_workers_are_told_what_the_clock_says() -> None:
    now = [0.0]
    plan = Plan(Told(), 1, 0, steps=10**9, parts=1, processes=1, process=0, clock=lambda: now[0])
    feed = Feed(plan, 0, 1, torch.device("cpu"))
    try:
        assert feed.next() == 0
        now[0] = 0.7
        told = [feed.next() for _ in range(IN_FLIGHT + 2)]
    finally:
        feed.close()
    assert told == sorted(told) and told[-1] == 0.7


class Curriculum(LeastSquares):
    """A task that notes which orbits are static; a step takes a second of a clock of its own."""

    def __init__(self, now: list[float]) -> None:
        super().__init__()
        orbits = tiny.bank_of(
            ellipsoid_orbit(views=4, novel=0, size=8),
            ellipsoid_orbit(views=4, novel=0, size=8, elevations_deg=[0.0, 20, 5, -9]),
        )
        self.source = OrbitSource(orbits, 4, 4, static_until=0.5)
        self.now, self.static = now, []

    def loss(self, batch: OrbitBatch) -> tuple[Tensor, dict[str, Tensor]]:
        self.now[0] += 1
        self.static.append(bool(batch.pose[..., 1].max() - batch.pose[..., 1].min() < 1e-3))
        return self.modules["linear"].weight.square().mean(), {}


def test_with_minutes_and_workers_dynamic_orbits_come_after_their_share_of_the_time(
    tmp_path: Path, monkeypatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now[0]))
    task = Curriculum(now)
    plan = schedule(10**9, minutes=1.0, workers=1, batch_size=1)
    Trainer(task, plan, tmp_path, 0, torch.device("cpu")).run()
    # One batch is drawn before the run, to measure what a step costs.
    assert 58 <= len(task.static) <= 62
    assert all(task.static[:30]) and not any(task.static[31 + IN_FLIGHT :])
