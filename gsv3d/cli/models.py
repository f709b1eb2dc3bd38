# SPDX-License-Identifier: Apache-2.0
"""``gsv3d models``: what is installed and what could be; add, convert and remove models."""

from __future__ import annotations

import _thread
import argparse
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsv3d.errors import GSV3DError, ModelError

if TYPE_CHECKING:
    from gsv3d.models import ModelInfo


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    text = "List the models that are installed and those that could be; add and remove them."
    parser = subparsers.add_parser("models", help=text, description=text)
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    actions = parser.add_subparsers(dest="action", metavar="ACTION")

    def action(name: str, words: str) -> argparse.ArgumentParser:
        return actions.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".")

    def for_programs(parser: argparse.ArgumentParser) -> None:
        # Not False again where it stood before the action.
        parser.add_argument(
            "--json",
            action="store_true",
            default=argparse.SUPPRESS,
            help="print JSON, for programs",
        )

    for_programs(action("list", "list the models, as without an action"))
    info = action("info", "show a model's outputs, size and license")
    info.add_argument("name", metavar="NAME")
    for_programs(info)

    convert = action("convert", "make a model of sv3d_p.safetensors or sv3d_u.safetensors")
    convert.add_argument("file", type=Path, metavar="FILE")
    convert.add_argument("name", metavar="NAME", help="what the model is called")
    convert.add_argument("--version", choices=("p", "u"), help="refuse the file of the other model")
    for_programs(convert)

    add = action("add", "fetch a published model from the hub, or copy one that you trained")
    add.add_argument("name", metavar="NAME", help="sv3d-p or sv3d-u; with --from, any name")
    add.add_argument("--from", dest="folder", type=Path, metavar="DIR",
                     help="a trained model, to be copied to your own models")  # fmt: skip
    add.add_argument("--agree", action="store_true",
                     help="you have read the model's license and agree to it")  # fmt: skip
    for_programs(add)

    remove = action("remove", "delete one of your own models")
    remove.add_argument("name", metavar="NAME")
    for_programs(remove)
    for long in (convert, add):
        long.add_argument("--stop-at-eof", action="store_true",
                          help="stop when standard input ends, for programs")  # fmt: skip
    return parser


def run(args: argparse.Namespace) -> int:
    from gsv3d import own_models

    if args.action == "info":
        return _info(args.name, args.json)
    if args.action in (None, "list"):
        _list(args.json)
        return 0
    watched = _Input() if getattr(args, "stop_at_eof", False) else None
    try:
        if args.action == "remove":
            path = own_models.remove(args.name)
        else:
            with (_lines if args.json else _bar)() as progress:
                if args.action == "convert":
                    path = own_models.convert(
                        args.file, args.name, args.version,
                        lambda *done: progress("converting", *done),
                    )  # fmt: skip
                else:
                    path = _add(args, watched, progress)
    except GSV3DError as error:
        if not args.json:
            raise
        _say(error=error.message, hint=error.hint, page=getattr(error, "page", ""))
        return 2
    finally:
        if watched is not None:
            watched.over = True
    if args.json:
        _say(path=str(path))
    elif args.action == "remove":
        print(f"The model in {path} was deleted.")
    else:
        print(f"The model '{path.name}' is in {path}.")
    return 0


def _list(as_json: bool) -> None:
    from gsv3d.models import available

    models = available()
    if as_json:
        _print_json([_record(model) for model in models])
        return
    width = max((len(model.name) for model in models), default=0)
    for model in sorted(models, key=lambda m: not m.installed):
        state = "installed    " if model.installed else "not installed"
        print(f"{model.name:<{width}}  {state}  {model.description}")
        detail = str(model.path) if model.installed else model.how_to_get
        if detail:
            print(f"{'':<{width}}  {'':<13}  {detail}")


def _info(name: str, as_json: bool) -> int:
    from gsv3d.models import available, read_details

    models = {model.name: model for model in available()}
    if name not in models:
        raise ModelError(f"There is no model '{name}'.", f"There are: {', '.join(models)}.")
    model = models[name]
    found = read_details(model)
    if as_json:
        _print_json(_record(model) | found)
        return 0
    print(f"{model.name}: {model.description}")
    if not model.installed:
        print(model.how_to_get)
        return 0
    gives = "views and Gaussians" if model.decoder else "only views; Gaussians are fitted to them"
    orbit = f"{found['views']} views at {found['pixels']} px"
    lines = {
        "Folder": f"{model.path} ({found['gigabytes']:.2f} GB)",
        "Gives": f"{gives} ({orbit}, {found['steps']} steps)",
        "License": model.license or "not recorded; see where the model came from",
        "Text": found["license_file"] or "",
    }
    for word, line in lines.items():
        if line:
            print(f"{word + ':':<9}{line}")
    return 0


def _add(args: argparse.Namespace, watched: _Input | None, progress: Any) -> Path:
    from gsv3d import hub, own_models

    if args.folder is not None:
        return own_models.add(args.folder, args.name)
    if args.name not in hub.SOURCES:
        raise ModelError(
            f"No model '{args.name}' has been published.",
            f"There are {' and '.join(hub.SOURCES)}; a model of your own is added with --from DIR.",
        )

    def agreed(license: str) -> bool:
        if args.json:
            _say(license=license)
        else:
            print(license)
        if args.agree:
            return True
        if watched is not None:
            return watched.line() == "yes"
        if not sys.stdin.isatty():
            raise ModelError(
                "The license has to be agreed to, and nobody is there to ask.",
                "Read it, and give --agree if you do.",
            )
        try:
            answer = input("Do you agree to this license? Type 'yes' if you do: ")
        except EOFError:
            return False
        return answer.strip().lower() == "yes"

    return hub.add(args.name, agreed, progress)


def _record(model: ModelInfo) -> dict[str, Any]:
    return asdict(model) | {"path": None if model.path is None else str(model.path)}


def _print_json(value: Any) -> None:
    json.dump(value, sys.stdout, indent=1)
    print()


def _say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


@contextmanager
def _lines() -> Iterator[Callable[[str, int, int], None]]:
    """Print progress as lines of JSON."""
    yield lambda phase, done, of: _say(phase=phase, done=done, of=of)


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int], None]]:
    """Draw a bar for each phase on a terminal; it appears with the first bytes of the phase."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    words = TextColumn("{task.description}")
    columns = (words, BarColumn(), DownloadColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, disable=not console.is_terminal)
    tasks: dict[str, Any] = {}

    def told(phase: str, done: int, of: int) -> None:
        if phase not in tasks:
            bar.start()
            tasks[phase] = bar.add_task(phase.capitalize(), total=of)
        bar.update(tasks[phase], completed=done)

    try:
        yield told
    finally:
        bar.stop()


class _Input:
    """The program at the other end of standard input, which answers and may stop the work.

    Attributes:
        over: set once there is no work to stop any more.
    """

    def __init__(self) -> None:
        self.over = False
        # Ctrl+C, and with it an interrupt, is ignored where a shell starts this in the background.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def line(self) -> str:
        """Wait for a line and return it."""
        return self._lines.get()

    def _read(self) -> None:
        # From the descriptor: a thread inside a buffered reader would hold a lock at exit.
        text = b""
        while part := os.read(sys.stdin.fileno(), 4096):
            *whole, text = (text + part).split(b"\n")
            for line in whole:
                self._lines.put(line.decode("utf-8", "replace").strip())
        if not self.over:
            _thread.interrupt_main()
        self._lines.put("")
