# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines that pip 23.2, pip 24.2 and uv 0.13 wrote, as one line for the panel and as reasons."""

from __future__ import annotations

import pytest

from blender_addon.pip_output import Listener, explain


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("Collecting diffusers==0.42.1 (from gsv3d==0.1.0)", "Looking for diffusers"),
        ("Collecting numpy<2,>=1.26", "Looking for numpy"),
        (
            "  Downloading diffusers-0.42.1-py3-none-any.whl (6.4 MB)",
            "Downloading diffusers (6.4 MB)",
        ),
        (
            "  Downloading fast_simplification-0.2.0-cp313-cp313-linux_x86_64.whl (286 kB)",
            "Downloading fast_simplification (286 kB)",
        ),
        (
            "  Downloading http://127.0.0.1/w/nvidia_cudnn_cu13-9.20-py3-none-any.whl (366.1 MB)",
            "Downloading nvidia_cudnn_cu13 (366.1 MB)",
        ),
        ("Installing collected packages: mpmath, torch, gsv3d", "Installing 3 packages"),
        ("Installing collected packages: uv", "Installing uv"),
        ("Downloading torch (812.3MiB)", "Downloading torch (812.3MiB)"),
        ("Prepared 24 packages in 31.09s", "Installing PyTorch"),
    ],
)
def test_a_line_says_what_goes_on(line: str, text: str) -> None:
    listener = Listener()
    listener.hear(line)
    assert (listener.text, listener.fraction) == (text, None)


def test_bytes_become_a_bar() -> None:
    listener = Listener()
    listener.hear("Progress 5 of 10")  # of what?
    assert listener.fraction is None
    listener.hear("  Downloading torch-2.13.0-cp313-cp313-manylinux_2_28_x86_64.whl (532.2 MB)")
    listener.hear("Progress 133000000 of 532000000")
    assert listener.fraction == 0.25
    assert listener.text == "Downloading torch: 133 of 532 MB"
    listener.hear("Installing collected packages: torch")
    assert listener.fraction is None


def test_lines_without_news_change_nothing() -> None:
    listener = Listener()
    listener.hear("Collecting torch")
    for line in ("", "WARNING: Retrying", "     ---- 5.0/8.0 MB 3.1 MB/s", "Using cached x.whl"):
        listener.hear(line)
    assert listener.text == "Looking for torch"


UNREACHABLE = (
    "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError('<pip>: "
    "Failed to establish a new connection: [Errno -2] Name or service not known')': /simple/uv/",
    "ERROR: Could not find a version that satisfies the requirement uv (from versions: none)",
    "ERROR: No matching distribution found for uv",
)


@pytest.mark.parametrize(
    ("code", "lines", "words"),
    [
        (1, ["ERROR: Could not install: [Errno 28] No space left"], "full"),
        (1, ["[WinError 112] There is not enough space on the disk"], "full"),
        (1, UNREACHABLE, "could not be reached"),
        (1, UNREACHABLE[1:], "no package uv"),
        (1, ["SSLError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]"], "certificate"),
        (1, ["OSError: [WinError 126] Module not found: c10.dll"], "library"),
        (1, ["[WinError 32] The process cannot access the file"], "another program holds it"),
        (2, ["error: Request failed", "  cause: dns error"], "could not be reached"),
        (1, ["ERROR: ResolutionImpossible: for help visit the page"], "exclude each other"),
        (-9, [], "memory"),
        (1, ["usage:", "ERROR: no such option: --indx"], "no such option: --indx."),
        (7, [], "Exit code 7"),
    ],
)
def test_a_failure_is_explained(code: int, lines: list[str], words: str) -> None:
    problem = explain("Installing the packages", code, lines)
    assert problem.what.startswith("Installing the packages failed")
    assert words in problem.what and problem.what.endswith(".") and problem.hint
