# SPDX-License-Identifier: Apache-2.0
"""A Debian with a real Blender and a screen, which is made once and entered for every run.

The system lies in a folder of its own (``GSV3D_WINDOW_ROOT``, else ``~/.cache/gsv3d-window``), one
for each of Debian's releases, and is entered through ``unshare``: its mounts and processes live in
name spaces of their own, so whatever happens, none of them is left behind when the run ends. The
network is the host's, and so is 127.0.0.1. The run's folder has the same path inside and outside;
the host's files lie under ``/host`` inside, so that ``chroot /host`` starts the host's Python next
to Blender.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SUITE = os.environ.get("GSV3D_WINDOW_SUITE", "trixie")
"""Debian's release: trixie has Blender 4.3, sid 5.2."""
PACKAGES = (
    "blender",
    "xvfb",
    "xdotool",
    "imagemagick",
    "libgl1-mesa-dri",
    "libegl1",
    "python3-numpy",
    "python3-requests",
    "python3-zstandard",
    *(("python3-cattr",) if SUITE == "sid" else ()),
)
# Raise the number when the recipe changes, and every machine builds its system anew.
RECIPE = f"2 {SUITE} {' '.join(PACKAGES)}\n"

SCREEN = (1600, 1000)
"""Width and height of the screen in pixels; Blender's window covers it."""

_NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private")

_ENTER = """
set -euo pipefail
mount -t proc proc "$R/proc"
mount --rbind /dev "$R/dev"
mount -t tmpfs tmpfs "$R/tmp"
mkdir -p "$R/host"
mount --rbind / "$R/host"
mount -t proc proc "$R/host/proc"
for shared in "$@"; do
    mkdir -p "$R$shared"
    mount --bind "$shared" "$R$shared"
done
"""

_SCREEN = """
# Xvfb chooses a free number itself: two runs on one machine don't meet.
exec 3> "$R/tmp/display"
chroot "$R" Xvfb -displayfd 3 -screen 0 {width}x{height}x24 -nolisten tcp &
exec 3>&-
for _ in $(seq 100); do [ -s "$R/tmp/display" ] && break; sleep 0.1; done
[ -s "$R/tmp/display" ] || {{ echo "Xvfb did not start within 10 s"; exit 5; }}
export DISPLAY=":$(cat "$R/tmp/display")"
"""


class UnavailableError(Exception):
    """The test cannot run on this machine; the text says why."""


@dataclass(frozen=True)
class Machine:
    """A prepared system: ``root`` is its top folder on the host."""

    root: Path

    def run(
        self,
        command: Sequence[str],
        *,
        shared: Path,
        log: Path,
        timeout: float,
        screen: bool = False,
    ) -> int:
        """Run ``command`` inside and return its exit status; 124 when ``timeout`` seconds passed.

        What it prints is added to ``log``. ``shared`` is the folder seen on both sides.
        """
        script = _ENTER
        if screen:
            script += _SCREEN.format(width=SCREEN[0], height=SCREEN[1])
        # Without exec: bash stays the first process of the name space, and with it everything ends.
        script += f'chroot "$R" env {shlex.join(command)} < /dev/null\n'
        variables = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "LIBGL_ALWAYS_SOFTWARE": "1",
            "R": str(self.root),
        }
        return _call(
            [*_NAMESPACES, "bash", "-c", script, "enter", str(shared)], log, timeout, variables
        )


def _call(
    command: Sequence[str], log: Path, timeout: float, environment: Mapping[str, str] | None = None
) -> int:
    """Run a command with its output in ``log``; return its exit status, 124 after ``timeout`` s."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if environment is None else dict(environment),
        )
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            return 124
        finally:
            if process.poll() is None:
                process.kill()
                process.wait(30)


def find_folder() -> Path:
    """Return where the system is kept between runs."""
    chosen = os.environ.get("GSV3D_WINDOW_ROOT")
    return (Path(chosen) if chosen else Path.home() / ".cache" / "gsv3d-window") / SUITE


def _check_rights() -> None:
    if not sys.platform.startswith("linux"):
        raise UnavailableError("the window test needs Linux: it builds a Debian to run Blender in")
    if os.geteuid() != 0:
        raise UnavailableError("the window test needs root: it builds a Debian to run Blender in")
    if shutil.which("unshare") is None:
        raise UnavailableError("the window test needs the command unshare (package util-linux)")
    tried = subprocess.run(
        [*_NAMESPACES, "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )
    if tried.returncode:
        raise UnavailableError(f"this root may not mount file systems: {tried.stderr.strip()}")


def _install_debootstrap(log: Path) -> None:
    if shutil.which("debootstrap"):
        return
    if shutil.which("apt-get") is None:
        raise UnavailableError("the window test needs debootstrap; no apt-get here to get it")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # An update that failed for one source of several need not keep the package away.
    _call(["apt-get", "update", "-q"], log, 180, quiet)
    # Another installation on this machine is waited for.
    install = ["apt-get", "install", "-y", "-q", "-o", "DPkg::Lock::Timeout=120", "debootstrap"]
    if _call(install, log, 300, quiet):
        raise UnavailableError(f"debootstrap could not be installed (no network?); see {log}")


def _build(root: Path, log: Path) -> None:
    """Make the system in ``root`` (about 70 s and 1.8 GB)."""
    before = log.stat().st_size if log.exists() else 0
    if _call(["debootstrap", "--variant=minbase", SUITE, str(root)], log, 300):
        said = log.read_text(errors="replace")[before:]
        if "Failed getting release" in said or "wget" in said.splitlines()[-1]:
            raise UnavailableError(f"no Debian mirror answered; see {log}")
        raise RuntimeError(f"debootstrap failed; the end of {log}:\n{read_tail(log)}")
    for name in ("resolv.conf", "hosts"):
        if Path("/etc", name).exists():
            shutil.copy(Path("/etc", name), root / "etc" / name)
    mtab = root / "etc" / "mtab"
    mtab.unlink(missing_ok=True)
    mtab.symlink_to("/proc/self/mounts")
    install = ["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-q"]
    command = [*install, "--no-install-recommends", *PACKAGES]
    if Machine(root).run(command, shared=log.parent, log=log, timeout=400):
        raise RuntimeError(f"Blender could not be installed; the end of {log}:\n{read_tail(log)}")
    shutil.rmtree(root / "var" / "cache" / "apt" / "archives", ignore_errors=True)


def prepare(log: Path) -> Machine:
    """Return the system of an earlier run, or build it.

    Raises:
        UnavailableError: not Linux, not root, no right to mount, or no mirror reached.
        RuntimeError: building it failed; the text holds the end of ``log``.
    """
    _check_rights()
    import fcntl  # there on POSIX only, and Windows collects this file too

    home = find_folder()
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        root, ready = home / "root", home / "ready"
        if not (ready.exists() and ready.read_text() == RECIPE and root.is_dir()):
            ready.unlink(missing_ok=True)
            shutil.rmtree(root, ignore_errors=True)
            _install_debootstrap(log)
            _build(root, log)
            ready.write_text(RECIPE)
    return Machine(root)


def read_tail(log: Path, lines: int = 40) -> str:
    """Return the last lines of a log file."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
