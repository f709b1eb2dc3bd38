# SPDX-License-Identifier: Apache-2.0
"""What the setting is for is counted by the system: pages it had to bring."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from gsv3d.training.allocator import keep_freed_memory

COUNTED = """
import resource, sys
import torch
from gsv3d.training.allocator import keep_freed_memory

def pages():
    def twice():
        for _ in range(10):
            torch.empty(2**24).fill_(1.0)  # 64 MiB
    twice()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    twice()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
plain = pages()
assert keep_freed_memory()
print(plain, pages())
"""


@pytest.mark.skipif(
    not (sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")),
    reason="glibc alone has the setting",
)
def test_freed_arrays_are_not_brought_again() -> None:
    # A process of its own: the setting cannot be taken back.
    command = [sys.executable, "-c", COUNTED]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    plain, kept = map(int, done.stdout.split())
    assert plain > 1000
    assert kept < plain / 20


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_other_systems_are_left_as_they_are(monkeypatch, platform: str) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", None)  # not even asked
    assert keep_freed_memory() is False
