# SPDX-License-Identifier: Apache-2.0
"""Plays in a real Blender with its window, with the zip that is shipped."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.window import machine

ROOT = Path(__file__).resolve().parents[2]


def play(
    folder: Path,
    scenario: Path,
    image: Path,
    settings: dict[str, Any],
    limit_s: float,
    beside: AbstractContextManager[Any] | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Build and install the add-on, have Blender play a scenario, and return what it noted.

    The test is skipped, or failed where it is required, on a machine where that is impossible.

    Args:
        folder: folder of settings, facts and pictures; it is emptied first.
        scenario: a script with the stages ``prepare`` and ``play``.
        image: copied into the folder.
        settings: what the scenario reads, besides ``python`` and ``image``.
        limit_s: seconds Blender may take.
        beside: context manager that is entered with the folder while Blender runs.

    Returns:
        The facts, and the command lines of all processes three seconds after Blender has ended.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    log = folder / "log.txt"
    log.touch()
    try:
        system = machine.prepare(log)
    except machine.UnavailableError as reason:
        if os.environ.get("GSV3D_WINDOW_REQUIRED"):
            pytest.fail(f"the window test must run here, but: {reason}\n{machine.read_tail(log)}")
        pytest.skip(str(reason))
    archive = _build_zip(folder)
    values = {
        "python": str(_write_host_python(folder)),
        "image": shutil.copy(image, folder),
        **settings,
    }
    (folder / "settings.json").write_text(json.dumps(values), "utf-8")
    environment = [
        f"BLENDER_USER_RESOURCES={folder / 'user'}",
        f"GSV3D_WINDOW_FOLDER={folder}",
        "OMP_NUM_THREADS=" + os.environ.get("OMP_NUM_THREADS", "2"),
    ]
    script = f"/host{scenario}"
    install = [
        "blender",
        "--command",
        "extension",
        "install-file",
        "-r",
        "user_default",
        "--enable",
    ]
    prepare = ["blender", "--background", "--python-exit-code", "3", "--python", script]
    width, height = machine.SCREEN
    geometry = ["--window-geometry", "0", "0", str(width), str(height)]
    play = ["blender", *geometry, "--python", script, "--", "play"]
    # A process that still runs three seconds after Blender has ended was left behind.
    after = (
        "status=$?; sleep 3; for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done"
        f" > {shlex.quote(str(folder / 'leftovers.txt'))}; exit $status"
    )
    for name, command, timeout, screen in (
        ("install", [*install, str(archive)], 180, False),
        ("prepare", [*prepare, "--", "prepare"], 180, False),
        ("play", ["sh", "-c", f"{shlex.join(play)}; {after}"], limit_s + 60, True),
    ):
        with (beside if name == "play" else None) or nullcontext():
            status = system.run(
                [*environment, *command], shared=folder, log=log, timeout=timeout, screen=screen
            )
        backend = "\n".join(
            f"{found}:\n{machine.read_tail(found)}" for found in folder.rglob("backend.log")
        )
        assert status == 0, f"{name} ended with {status}:\n{machine.read_tail(log)}\n{backend}"
    said = log.read_text("utf-8", errors="replace")
    assert "Traceback" not in said, f"an error in Blender:\n{said}"
    facts = json.loads((folder / "facts.json").read_text("utf-8"))
    left = (folder / "leftovers.txt").read_text("utf-8", errors="replace").splitlines()
    return facts, left


def _build_zip(folder: Path) -> Path:
    """Build the add-on as it is shipped, for Linux and Debian's Python."""
    output = folder / "zip"
    done = subprocess.run(
        [sys.executable, "build_addon.py", "--platform", "linux-x64", "--output", str(output)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    (folder / "build.txt").write_text(done.stdout + done.stderr, "utf-8")
    assert done.returncode == 0, f"build_addon.py failed:\n{done.stdout}{done.stderr}"
    made = sorted(output.glob("*.zip"))
    assert len(made) == 1, f"build_addon.py made {made}"
    return made[0]


def _write_host_python(folder: Path) -> Path:
    """Write a file that runs this test's Python, with the model, from inside the other system."""
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nexec chroot /host {shlex.quote(sys.executable)} "$@"\n', "utf-8")
    script.chmod(0o755)
    return script
