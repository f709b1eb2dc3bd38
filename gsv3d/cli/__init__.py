# SPDX-License-Identifier: Apache-2.0
"""The command ``gsv3d``."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from gsv3d._version import __version__
from gsv3d.errors import Cancelled, GSV3DError
from gsv3d.threads import let_threads_sleep

COMMANDS = {
    "generate": "pictures to Gaussians and textured meshes",
    "fit": "pictures with cameras to Gaussians and a textured mesh",
    "cutout": "show which object of a picture is used, as a PNG without background",
    "models": "list, add, convert and remove models",
}
LAB_COMMANDS = {
    "gather": "gather 3D objects of public repositories to train on",
    "render": "render orbits of 3D objects, to train and evaluate on",
    "train": "train a stage of a model on rendered orbits",
    "evaluate": "measure a model against ground truth and baselines",
}
"""Each has a module of its name, here or in ``gsv3d.lab.cli``, with ``add_parser(subparsers)`` and
``run(args) -> int``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        argv: without the program's name; ``sys.argv`` if not given.

    Returns:
        0 when all went well, 1 when some of it failed, 2 when nothing could be done, 130 when
        interrupted.
    """
    let_threads_sleep()
    # Remarks of transformers while it is imported do not concern the user.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        # A console of another code page must not turn a file's name into a crash.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    for before, word in zip(["gsv3d", *arguments], arguments, strict=False):
        # As a path it would mean the current folder.
        if not word or re.fullmatch(r"--[\w-]+=", word):
            print(
                f"gsv3d: The argument after '{word[:-1] or before}' is empty. "
                "If it comes from a variable of your shell, that is not set.",
                file=sys.stderr,
            )
            return 2
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    try:
        args = _parser(chosen).parse_args(arguments)
        return int(_module(args.command).run(args))
    except Cancelled as error:
        print(f"gsv3d: {error}", file=sys.stderr)
        return 130
    except GSV3DError as error:
        print(f"gsv3d: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("gsv3d: Stopped.", file=sys.stderr)
        return 130


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    """Return the parser; import only the chosen command's module, and name the others."""
    parser = argparse.ArgumentParser(
        prog="gsv3d", description="One picture to 3D Gaussians and a textured mesh."
    )
    parser.add_argument("--version", action="version", version=f"gsv3d {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, description in (COMMANDS | LAB_COMMANDS).items():
        if name == chosen:
            _module(name).add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=description)
    return parser


def _module(command: str) -> Any:
    room = "gsv3d.lab.cli" if command in LAB_COMMANDS else "gsv3d.cli"
    return importlib.import_module(f"{room}.{command}")
