# SPDX-License-Identifier: Apache-2.0
"""What the setting is for is counted by the system: pages it had to bring."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from gsv3d.lab.training.allocator import freed_memory_kept

COUNTED = """
import resource, sys
import torch
from gsv3d.lab.training.allocator import freed_memory_kept

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
with freed_memory_kept() as kept:
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
    with freed_memory_kept() as kept:
        assert kept is False
