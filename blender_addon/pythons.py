# SPDX-License-Identifier: GPL-3.0-or-later
"""Find a Python on this computer with which the backend can be installed. No bpy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .backend_process import NO_WINDOW, child_environment, find_python
from .problems import Problem

VERSIONS = ("3.13", "3.12", "3.11")
"""Versions that the backend's packages have wheels for, the best first."""

_PATIENCE_S = 20.0
_REPORT = """
import json, platform, struct, sys
report = {
    "version": sys.version_info[:3], "path": sys.executable, "base": sys.base_prefix,
    "bits": 8 * struct.calcsize("P"), "machine": platform.machine(), "pip": "",
}
try:
    import ensurepip, venv
    report["pip"] = ensurepip.version()
except ImportError:
    pass
print(json.dumps(report))
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python that can make the backend's environment.

    Attributes:
        path: the program itself, absolute.
        version: such as ``"3.12.1"``.
        pip: version of the pip that its environments get, such as ``(24, 0)``.
    """

    path: Path
    version: str
    pip: tuple[int, ...]


def find(chosen: str = "", own: str = "") -> Interpreter:
    """Return the first Python that will do.

    Args:
        chosen: what the artist chose, asked first: a program, or the folder of an environment.
        own: Blender's own Python, asked last.

    Raises:
        Problem: there is none; it tells why those that were found cannot be used.
    """
    refused: dict[str, str] = {}  # by the reason: several names often stand for one Python
    for number, command in enumerate(_candidates(chosen, own)):
        found = examine(command)
        if isinstance(found, Interpreter):
            return found
        if chosen and number == 0:
            found = found or "cannot be run"
        if found:
            refused.setdefault(found, command[0])
    reasons = "".join(f" {path} {reason}." for reason, path in list(refused.items())[:2])
    raise Problem(
        f"No Python {VERSIONS[-1]} to {VERSIONS[0]} was found on this computer.{reasons}",
        f"Install Python {VERSIONS[0]} (python.org, or your system's package manager), or choose "
        "one in Preferences > Add-ons > GSV3D; then press Install Backend again.",
    )


def examine(command: Sequence[str]) -> Interpreter | str:
    """Run a Python, and return it or why it cannot be used; empty if it cannot be run.

    Windows' Python install manager must not install one because it is asked.
    """
    try:
        result = subprocess.run(
            [*command, "-I", "-c", _REPORT],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**child_environment(), "PYTHON_MANAGER_AUTOMATIC_INSTALL": "0"},
            timeout=_PATIENCE_S,
            creationflags=NO_WINDOW,
            check=False,
        )
        report = json.loads(result.stdout.decode("utf-8", "replace"))
        version = [int(part) for part in report["version"]]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return ""
    return _why_not(version, report) or Interpreter(
        Path(report["path"]),
        ".".join(map(str, version)),
        tuple(int(part) for part in report["pip"].split(".") if part.isdigit()),
    )


def _why_not(version: Sequence[int], report: dict[str, str | int]) -> str:
    name = f"is Python {version[0]}.{version[1]}"
    if f"{version[0]}.{version[1]}" not in VERSIONS:
        return name
    if report["bits"] != 64:
        return f"{name} for 32 bits, PyTorch needs 64"
    if sys.platform == "darwin" and report["machine"] != "arm64":
        return f"{name} for Intel, PyTorch is made for Apple silicon alone"
    if "WindowsApps" in f"{report['path']}{report['base']}":
        # Windows puts the files it writes elsewhere, where no other program finds them.
        return f"{name} from Microsoft's Store, whose files other programs do not see"
    if not report["pip"]:
        return f"{name} without venv and pip (on Debian and Ubuntu install python3-venv)"
    return ""


def _candidates(chosen: str, own: str) -> Iterator[list[str]]:
    if chosen:
        try:
            yield [str(find_python(chosen))]
        except Problem:
            yield [chosen]  # it cannot be run, which is said if no other is found
    launcher = shutil.which("py") if os.name == "nt" else None
    for version in VERSIONS:
        if launcher:
            yield [launcher, f"-{version}"]
        for path in _of_version(version):
            yield [str(path)]
    for name in ("python3", "python"):
        on_path = shutil.which(name)
        # Apple's offers to install developer tools in place of running, and is too old.
        if on_path and not (sys.platform == "darwin" and on_path == "/usr/bin/python3"):
            yield [on_path]
    if own:
        yield [own]


def _of_version(version: str) -> Iterator[Path]:
    """Return programs of a version: on the PATH, then where installers put them."""
    on_path = shutil.which(f"python{version}")
    if on_path:
        yield Path(on_path)
    home = Path(os.path.expanduser("~"))
    if os.name == "nt":
        local = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
        short = "Python" + version.replace(".", "")
        yield local / "Programs" / "Python" / short / "python.exe"
        yield Path(os.environ.get("ProgramFiles") or r"C:\Program Files") / short / "python.exe"
        pyenv, inside = home / ".pyenv" / "pyenv-win", "python.exe"
        managed = Path(os.environ.get("APPDATA") or home / "AppData" / "Roaming")
    else:
        # Programs started from the desktop often have a shorter PATH than shells.
        for folder in (
            "/opt/homebrew/bin",
            "/usr/local/bin",
            "/usr/bin",
            f"/Library/Frameworks/Python.framework/Versions/{version}/bin",
        ):
            yield Path(folder) / f"python{version}"
        pyenv, inside = Path(os.environ.get("PYENV_ROOT") or home / ".pyenv"), "bin/python3"
        managed = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    yield from sorted((pyenv / "versions").glob(f"{version}*/{inside}"), reverse=True)
    yield from sorted((managed / "uv" / "python").glob(f"cpython-{version}.*/{inside}"))
