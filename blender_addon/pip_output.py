# SPDX-License-Identifier: GPL-3.0-or-later
"""Read from the output of pip and uv how far they are and why they failed. No bpy."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .problems import Problem

_NAME = r"([A-Za-z0-9](?:[A-Za-z0-9_.]|-(?!\d))*)"
_PIP_DOWNLOAD = re.compile(rf"^\s*Downloading (?:\S*/)?{_NAME}-\d\S*(?: \(([^)]+)\))?")
_UV_DOWNLOAD = re.compile(rf"^\s*Downloading {_NAME} \(([^)]+)\)")
_BYTES = re.compile(r"^Progress (\d+) of (\d+)$")
_RETRY = "then press Install Backend again: what was downloaded is kept."


class Listener:
    """Turn lines of output into one line for the panel and, if possible, a fraction."""

    def __init__(self) -> None:
        self.text = ""
        self.fraction: float | None = None
        self._what = ""

    def hear(self, line: str) -> None:
        """Take one line of output."""
        number = _BYTES.match(line)
        if number:
            done, whole = int(number[1]), int(number[2])
            if whole and self._what:
                self.fraction = done / whole
                self.text = f"Downloading {self._what}: {done / 1e6:,.0f} of {whole / 1e6:,.0f} MB"
            return
        download = _PIP_DOWNLOAD.match(line) or _UV_DOWNLOAD.match(line)
        if download:
            self._what = download[1]
            self._say(f"Downloading {self._what}" + (f" ({download[2]})" if download[2] else ""))
        elif line.startswith("Collecting "):
            self._say(f"Looking for {re.split(r'[^A-Za-z0-9_.-]', line[11:], maxsplit=1)[0]}")
        elif line.startswith("Installing collected packages: "):
            names = line.partition(": ")[2].split(", ")
            self._say(f"Installing {f'{len(names)} packages' if names[1:] else names[0]}")
        elif line.startswith("Prepared "):
            self._say("Installing PyTorch")

    def _say(self, text: str) -> None:
        self.text, self.fraction = text, None


_CAUSES = (
    (
        r"No space left on device|Errno 28|not enough space on the disk|disk is full",
        "The disk is full.",
        f"Free some space, {_RETRY}",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLError|SSL: ",
        "The package index was not trusted: its certificate could not be verified.",
        f"A proxy may be in the way: set pip's option 'cert' as your network asks, {_RETRY}",
    ),
    (
        r"NewConnectionError|Failed to establish a new connection|NameResolutionError|dns error"
        r"|Max retries exceeded|ReadTimeout|ConnectTimeout|ProxyError|Connection(Reset|Aborted)"
        r"|Connection broken|IncompleteRead|Network is unreachable",
        "The package index could not be reached.",
        f"Check the connection to the internet and pip's settings for proxies, {_RETRY}",
    ),
    (
        r"WinError 206|Enable-Long-Paths|enable-long-paths|File name too long",
        "A path became too long for this system.",
        f"Allow long paths in Windows, {_RETRY}",
    ),
    (
        r"WinError (5|32)\b|Permission denied|Errno 13",
        "A file could not be written: no permission, or another program holds it.",
        f"Close programs that look into that folder (virus scanners do), {_RETRY}",
    ),
    (
        r"WinError (126|1114)\b|DLL load failed",
        "PyTorch lacks a library of Windows.",
        f"Install Microsoft's Visual C++ Redistributable (x64), {_RETRY}",
    ),
    (
        r"ResolutionImpossible",
        "Packages that are needed exclude each other.",
        "Look whether pip's settings on this computer name constraints; Show Log says which.",
    ),
    (
        r"MemoryError|Cannot allocate memory",
        "The memory was not enough.",
        f"Close other programs, {_RETRY}",
    ),
)


def explain(what: str, code: int, lines: Sequence[str]) -> Problem:
    """Return why a step failed, from its exit code and its last lines.

    Args:
        what: the step, as a sentence begins: ``"Installing the packages"``.
    """
    text = "\n".join(lines) + ("\nMemoryError" if code in (-9, 137) else "")
    for pattern, cause, hint in _CAUSES:
        if re.search(pattern, text):
            return Problem(f"{what} failed. {cause}", hint)
    missing = re.search(r"No matching distribution found for ([^\s;(]+)", text)
    if missing:
        return Problem(
            f"{what} failed. There is no package {missing[1]} for this Python and computer.",
            "Choose another Python (3.11 to 3.13), or look at pip's settings; Show Log says more.",
        )
    errors = [line for line in lines if re.match(r"(ERROR|error|\w*Error)\b", line)]
    said = (errors or list(lines) or [f"Exit code {code}"])[-1].strip()
    said = re.sub(r"^(ERROR|error):\s*", "", said).rstrip(".")
    return Problem(
        f"{what} failed: {said}.", f"Look at the log (Show Log) or choose another Python, {_RETRY}"
    )
