# SPDX-License-Identifier: Apache-2.0
"""``gsv3d models``: what is installed and what could be; add, convert and remove models."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsv3d.errors import ModelError

if TYPE_CHECKING:
    from gsv3d.models import ModelInfo


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    text = "List the models that are installed and those that could be; add and remove them."
    parser = subparsers.add_parser("models", help=text, description=text)
    parser.add_argument("--json", action="store_true", help="for programs")
    actions = parser.add_subparsers(dest="action", metavar="ACTION")

    def action(name: str, words: str) -> argparse.ArgumentParser:
        return actions.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".")

    def for_programs(parser: argparse.ArgumentParser) -> None:
        # Not False again where it stood before the action.
        parser.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="for programs"
        )

    for_programs(action("list", "list the models, as without an action"))
    info = action("info", "say what a model is and has")
    info.add_argument("name", metavar="NAME")
    for_programs(info)

    convert = action("convert", "make a model of sv3d_p.safetensors or sv3d_u.safetensors")
    convert.add_argument("file", type=Path, metavar="FILE")
    convert.add_argument("name", metavar="NAME", help="what the model is called")
    convert.add_argument("--version", choices=("p", "u"), help="refuse the file of the other one")

    add = action("add", "fetch a published model from the hub, or copy one that you trained")
    add.add_argument("name", metavar="NAME", help="sv3d-p or sv3d-u; with --from, any name")
    add.add_argument("--from", dest="folder", type=Path, metavar="DIR",
                     help="a trained model, to be copied to your own models")  # fmt: skip
    add.add_argument("--agree", action="store_true",
                     help="you have read the model's license and agree to it")  # fmt: skip

    remove = action("remove", "delete one of your own models")
    remove.add_argument("name", metavar="NAME")
    return parser


def run(args: argparse.Namespace) -> int:
    from gsv3d import models

    if args.action == "info":
        return _info(args.name, args.json)
    if args.action == "convert":
        with _progress() as progress:
            target = models.convert(args.file, args.name, args.version, progress)
        print(f"The model '{target.name}' is in {target}.")
    elif args.action == "add":
        target = _add(args.name, args.folder, args.agree)
        print(f"The model '{target.name}' is in {target}.")
    elif args.action == "remove":
        print(f"The model in {models.remove(args.name)} was deleted.")
    else:
        _list(args.json)
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
    from gsv3d.models import available, details

    models = {model.name: model for model in available()}
    if name not in models:
        raise ModelError(f"There is no model '{name}'.", f"There are: {', '.join(models)}.")
    model = models[name]
    found = details(model)
    if as_json:
        _print_json(_record(model) | found)
        return 0
    print(f"{model.name}: {model.description}")
    if not model.installed:
        print(model.how_to_get)
        return 0
    gives = "views and Gaussians" if model.decoder else "views alone: it has no decoder"
    orbit = f"{found['views']} views at {found['pixels']} px"
    lines = {
        "Folder": f"{model.path} ({found['gigabytes']:.2f} GB)",
        "Gives": f"{gives} ({orbit}, {found['steps']} steps)",
        "License": found["license"] or "not recorded; see where the model came from",
    }
    for word, line in lines.items():
        print(f"{word + ':':<9}{line}")
    return 0


def _add(name: str, folder: Path | None, agree: bool) -> Path:
    from gsv3d import hub, models

    if folder is not None:
        return models.add(folder, name)
    if name not in hub.SOURCES:
        raise ModelError(
            f"No model '{name}' has been published.",
            f"There are {' and '.join(hub.SOURCES)}; a model of your own is added with --from DIR.",
        )

    def agreed(license: str) -> bool:
        print(license)
        if agree:
            return True
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

    with _progress() as progress:
        return hub.add(name, agreed, progress)


def _record(model: ModelInfo) -> dict[str, Any]:
    return {
        "name": model.name,
        "installed": model.installed,
        "path": None if model.path is None else str(model.path),
        "description": model.description,
        "how_to_get": model.how_to_get,
        "decoder": model.decoder,
    }


def _print_json(value: Any) -> None:
    json.dump(value, sys.stdout, indent=1)
    print()


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, which appears with the first bytes that are written."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("Converting"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, disable=not console.is_terminal)

    def told(written: int, total: int) -> None:
        if not bar.task_ids:
            bar.start()
            bar.add_task("", total=total)
        bar.update(bar.task_ids[0], completed=written)

    try:
        yield told
    finally:
        bar.stop()
