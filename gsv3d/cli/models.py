# SPDX-License-Identifier: Apache-2.0
"""``gsv3d models``: what is installed, and what could be."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    text = "List the models that are installed and those that could be."
    parser = subparsers.add_parser("models", help=text, description=text)
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--add", type=Path, metavar="DIR",
                        help="copy a trained model to your own models")  # fmt: skip
    parser.add_argument("--name", help="with --add: what it is called (its folder's name)")
    return parser


def run(args: argparse.Namespace) -> int:
    from gsv3d.models import add, available

    if args.add is not None:
        target = add(args.add, args.name or args.add.resolve().name)
        print(f"The model '{target.name}' is in {target}.")
        return 0

    models = available()
    if args.json:
        records = [
            {
                "name": model.name,
                "installed": model.installed,
                "path": None if model.path is None else str(model.path),
                "description": model.description,
                "how_to_get": model.how_to_get,
            }
            for model in models
        ]
        json.dump(records, sys.stdout, indent=1)
        print()
        return 0
    width = max((len(model.name) for model in models), default=0)
    for model in sorted(models, key=lambda m: not m.installed):
        state = "installed    " if model.installed else "not installed"
        print(f"{model.name:<{width}}  {state}  {model.description}")
        detail = str(model.path) if model.installed else model.how_to_get
        if detail:
            print(f"{'':<{width}}  {'':<13}  {detail}")
    return 0
