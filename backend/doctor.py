# SPDX-License-Identifier: Apache-2.0
"""`gsv3d-backend doctor`: check everything a backend needs, and say what is to be done."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import zmq

from gsv3d._version import __version__

from .protocol import ConnectionFileError, folder_in_use, read_connection
from .protocol.connection_file import FILE_NAME

LEAST_GB = 2.0
"""Disk space below which results may not fit."""


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        what: one line.
        hint: what to do; empty where all is well.
    """

    what: str
    hint: str = ""

    def __str__(self) -> str:
        return f"look  {self.what}\n      {self.hint}" if self.hint else f"ok    {self.what}"


def findings(data_dir: Path, connection_path: Path | None = None) -> Iterator[Finding]:
    """Check one thing after the other; each check may take some seconds."""
    yield Finding(
        f"GSV3D {__version__} in Python {platform.python_version()} on {platform.platform()}"
    )
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _torch,
        _models,
        lambda: _folder(data_dir),
        _loopback,
        lambda: _backend(data_dir, connection_path or data_dir / FILE_NAME),
    )
    for check in checks:
        try:
            yield from check()
        except Exception as error:  # whatever is broken, the other checks go on
            name = getattr(check, "__name__", "a check").strip("_<>")
            yield Finding(f"{name}: {type(error).__name__}: {error}", "Install GSV3D again.")


def _torch() -> Iterator[Finding]:
    import torch

    from gsv3d.devices import choose_device
    from gsv3d.rendering.gsplat_backend import unavailable_because

    build = torch.version.cuda or torch.version.hip or "the processor"
    device = choose_device()
    driver = _driver()
    if device.type == "cpu":
        what = f"torch {torch.__version__} for {build}; it runs on the processor"
        if driver and not torch.version.cuda:
            yield Finding(what, f"There is {driver}: install torch's build for CUDA.")
        elif driver:
            yield Finding(what, f"There is {driver}, which torch cannot use: update its driver.")
        else:
            yield Finding(what)
        return
    card = torch.cuda.get_device_properties(device)
    free, whole = (size / 2**30 for size in torch.cuda.mem_get_info(device))
    yield Finding(
        f"torch {torch.__version__} for {build}; {card.name}, {free:.1f} of {whole:.1f} GB free"
    )
    reason = unavailable_because(device)
    if reason:
        hint = "Gaussians are drawn by torch, more slowly. With a CUDA toolkit gsplat is built."
        yield Finding(f"gsplat is not used: {reason}", hint)
    else:
        yield Finding("gsplat draws on the card")


def _driver() -> str:
    """Return the names of the NVIDIA card and its driver, as the driver tells them; or empty."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    asked = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=False)
    name, _, version = done.stdout.strip().partition("\n")[0].partition(", ")
    return f"an NVIDIA card, {name}, with driver {version}" if not done.returncode else ""


def _models() -> Iterator[Finding]:
    from gsv3d.models import available

    installed = [model.name for model in available() if model.installed]
    hint = "" if installed else "Install GSV3D again: the model that comes with it is missing."
    yield Finding(f"models: {', '.join(installed) or 'none'}", hint)


def _folder(data_dir: Path) -> Iterator[Finding]:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=data_dir) as file:
            file.write(b"x")
    except OSError as error:
        what = f"the data folder {data_dir} cannot be written: {error.strerror or error}"
        yield Finding(what, "Check its permissions, or choose another with --data-dir.")
        return
    free = shutil.disk_usage(data_dir).free / 1e9
    hint = "" if free > LEAST_GB else "Free some space, or choose another folder with --data-dir."
    yield Finding(f"the data folder {data_dir} can be written, {free:.1f} GB are free", hint)
    if os.name == "posix" and data_dir.stat().st_mode & 0o077:
        what = f"the data folder {data_dir} can be read by other users"
        yield Finding(what, f"Take that from them: chmod 700 '{data_dir}'")


def _loopback() -> Iterator[Finding]:
    context = zmq.Context()
    try:
        here, there = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        port = here.bind_to_random_port("tcp://127.0.0.1")
        there.connect(f"tcp://127.0.0.1:{port}")
        there.send(b"x")
        if here.poll(5000):
            yield Finding(f"programs on this computer reach each other, ZeroMQ {zmq.zmq_version()}")
        else:
            hint = "A firewall may block 127.0.0.1: allow Python to use it."
            yield Finding("a message over 127.0.0.1 did not arrive within 5 s", hint)
    finally:
        context.destroy(0)


def _backend(data_dir: Path, connection_path: Path) -> Iterator[Finding]:
    try:
        connection = read_connection(connection_path)
    except ConnectionFileError as error:
        if folder_in_use(data_dir):
            hint = "Stop it and start it again; it writes a new one."
            yield Finding(f"a backend runs; its connection file is unusable. {error.what}", hint)
        elif connection_path.exists():
            yield Finding(error.what, error.hint)
        else:
            yield Finding("no backend runs on this data folder")
        return
    if not connection.alive:
        yield Finding("no backend runs; the last one did not end cleanly")
    else:
        version = connection.versions.get("backend", "?")
        yield Finding(f"a backend runs, version {version}, process {connection.pid}")
