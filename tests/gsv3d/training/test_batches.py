# SPDX-License-Identifier: Apache-2.0
"""The thread that prepares batches: alone with its core, and without a trace on others."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import torch

from gsv3d.training.batches import Feed, Plan


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
