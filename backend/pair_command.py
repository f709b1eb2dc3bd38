# SPDX-License-Identifier: Apache-2.0
"""`gsv3d-backend pair`: show a pairing code of the running backend; list or forget computers."""

from __future__ import annotations

import argparse
from typing import Any

from .conversation import ask
from .errors import BackendError
from .paired import PairedComputers
from .protocol import CODE_S
from .protocol import messages as m


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Add the command to a parser."""
    pair = commands.add_parser(
        "pair", parents=[shared], help="make a code by which another computer is let in"
    )
    one = pair.add_mutually_exclusive_group()
    one.add_argument(
        "--address",
        default="",
        metavar="HOST[:PORT]",
        help="by which that computer reaches this one (default: where the backend listens)",
    )
    one.add_argument("--list", action="store_true", help="show the paired computers instead")
    one.add_argument(
        "--forget",
        metavar="NAME",
        help="shut a paired computer out: its name, or its number in the list",
    )
    pair.set_defaults(run=_pair)


def show(code: str, seconds: float = CODE_S) -> None:
    """Print a code and what to do with it."""
    print(
        f"Paste this line into Pairing Code in the preferences of the add-on. It works once, and "
        f"for {seconds / 60:.0f} minutes:\n{code}",
        flush=True,
    )


def _pair(options: argparse.Namespace) -> int:
    if options.list:
        _list(PairedComputers(options.data_dir))
        return 0
    if options.forget is not None:
        _forget(PairedComputers(options.data_dir), options.forget)
        return 0
    path, address = options.connection_file, options.address
    _, invitation = ask(path, lambda session: session.invite(address), m.Invitation)
    show(invitation.code, invitation.seconds)
    return 0


def _list(paired: PairedComputers) -> None:
    for number, computer in enumerate(paired.computers, 1):
        print(f"{number:3}  {computer.name}  paired {computer.since[:16].replace('T', ' ')}")
    if not paired.computers:
        print(f"gsv3d-backend: no computer is paired with the backend of {paired.path.parent}.")


def _forget(paired: PairedComputers, name: str) -> None:
    computers = paired.computers
    found = [computer for computer in computers if computer.name == name]
    found = found or [one for number, one in enumerate(computers, 1) if str(number) == name]
    if not found:
        raise BackendError(
            f"No paired computer is called '{name}'.",
            "'gsv3d-backend pair --list' shows those that are paired.",
        )
    if len(found) > 1:
        raise BackendError(
            f"{len(found)} paired computers are called '{name}'.",
            "Name one by its number, which 'gsv3d-backend pair --list' shows.",
        )
    paired.change(lambda listed: [computer for computer in listed if computer != found[0]])
    print(f"gsv3d-backend: {found[0].name} is forgotten, also by a backend that is running.")
