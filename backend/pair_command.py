# SPDX-License-Identifier: Apache-2.0
"""`gsv3d-backend pair`: make a pairing code of the running backend and show it."""

from __future__ import annotations

import argparse
from typing import Any

from .conversation import converse
from .protocol import CODE_S
from .protocol import messages as m


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Add the command to a parser."""
    pair = commands.add_parser(
        "pair", parents=[shared], help="make a code by which another computer is let in"
    )
    pair.add_argument(
        "--address",
        default="",
        metavar="HOST[:PORT]",
        help="where that computer reaches this one, if not where the backend listens",
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
    conversation = converse(
        options.connection_file, lambda session: session.invite(options.address)
    )
    invitation = next(said[2] for said in conversation if isinstance(said[2], m.Invitation))
    show(invitation.code, invitation.seconds)
    return 0
