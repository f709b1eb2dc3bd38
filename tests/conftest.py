# SPDX-License-Identifier: Apache-2.0
"""What every test shares: few threads, no network, no user's folder, and words for what is skipped.

The environment is set while this file is imported, before any test imports torch or bpy,
and is inherited by the processes that tests start.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

from gsv3d.threads import let_threads_sleep

# How long an example takes says how busy the machine is.
settings.register_profile("any load", deadline=None)
settings.load_profile("any load")

_HOME = Path(tempfile.mkdtemp(prefix="gsv3d-tests-"))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)

# Small tensors run slower on many threads than on two, and tests share the machine.
# Torch takes MKL's number before OpenMP's: both must be the one that was asked for.
_threads = os.environ.get("OMP_NUM_THREADS", str(min(2, os.cpu_count() or 1)))
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, _threads)
let_threads_sleep()

os.environ.update(
    {
        # A test that reaches for a download must fail, on every machine alike.
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "DIFFUSERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "MPLBACKEND": "Agg",
        # Without clusters Ray keeps to loopback on Windows and macOS.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Neither the user's Blender nor the user's running backend may be touched.
        "BLENDER_USER_RESOURCES": str(_HOME / "blender"),
        "XDG_DATA_HOME": str(_HOME / "data"),
        "XDG_CONFIG_HOME": str(_HOME / "config"),
        "XDG_CACHE_HOME": str(_HOME / "cache"),
        "XDG_STATE_HOME": str(_HOME / "state"),
        "XDG_RUNTIME_DIR": str(_HOME / "runtime"),
        "LOCALAPPDATA": str(_HOME / "localappdata"),
        "APPDATA": str(_HOME / "appdata"),
    }
)
for _folder in ("blender", "data", "config", "cache", "state", "runtime"):
    (_HOME / _folder).mkdir(mode=0o700)


def pytest_runtest_setup() -> None:
    """Give every test the same random numbers in every run, alone or among others."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run two files of tests at a time, but the one window in this process."""
    return 0 if _is_window_wanted(config) else min(2, os.cpu_count() or 1)


def _is_window_wanted(config: pytest.Config) -> bool:
    """Return True when the command line names the window test, by marker or by path."""
    by_marker = "window" in (config.option.markexpr or "")
    by_path = any("tests/window" in Path(argument).as_posix() for argument in config.args)
    return by_marker or by_path


def _explain_no_gpu() -> str:
    """Return the reason the tests marked gpu are skipped, empty where a card is there."""
    import torch

    return "" if torch.cuda.is_available() else "no CUDA card on this machine"


def _explain_no_bpy() -> str:
    """Return the reason the tests marked bpy are skipped, empty where the package is installed."""
    if importlib.util.find_spec("bpy") is None:
        return "the bpy package is not installed (it has wheels for CPython 3.11 only)"
    return ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the window test to those who ask for it; skip what the machine cannot run."""
    if not _is_window_wanted(config):
        left_out = [item for item in items if item.get_closest_marker("window")]
        if left_out:
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if item not in left_out]
    for marker, why_not in (("gpu", _explain_no_gpu), ("bpy", _explain_no_bpy)):
        marked = [item for item in items if item.get_closest_marker(marker)]
        reason = why_not() if marked else ""
        if reason:
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))
