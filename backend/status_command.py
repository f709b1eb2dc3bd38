# SPDX-License-Identifier: Apache-2.0
"""`gsv3d-backend status`: show the backend and its jobs."""

from __future__ import annotations

import argparse
import json
from typing import Any

from .conversation import converse
from .protocol import Connection
from .protocol import messages as m
from .protocol.fields import to_map


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Add the command to a parser."""
    status = commands.add_parser("status", parents=[shared], help="show the backend and its jobs")
    status.add_argument("--json", action="store_true", help="print one JSON object")
    status.add_argument("--watch", action="store_true", help="update at every change")
    status.set_defaults(run=_status)


def _status(options: argparse.Namespace) -> int:
    shown = ""
    conversation = converse(
        options.connection_file, lambda session: session.status(follow=options.watch)
    )
    for connection, welcome, event in conversation:
        if isinstance(event, m.Bye):
            print(f"The backend has ended. {event.why}")
            return 0
        if not isinstance(event, m.Queue):
            continue
        write = _as_json if options.json else _as_text
        text = write(connection, welcome, event)
        if text != shown:
            print(text, flush=True)
        if not options.watch:
            return 0
        shown = text
    return 0


def _as_json(connection: Connection, welcome: m.Welcome, queue: m.Queue) -> str:
    values = {"pid": connection.pid, "endpoint": connection.endpoint}
    return json.dumps(values | to_map(welcome) | to_map(queue), indent=1)


def _as_text(connection: Connection, welcome: m.Welcome, queue: m.Queue) -> str:
    lines = [
        f"GSV3D backend {welcome.backend} on {connection.endpoint}, process {connection.pid}, "
        f"protocol {welcome.version}",
        f"Device: {welcome.device or 'the worker is starting'}",
    ]
    installed = [model.name for model in welcome.models if model.installed]
    if welcome.device:
        lines.append(f"Models: {', '.join(installed) or 'none installed'}")
    lines.append(f"Jobs: {len(queue.jobs) or 'none'}")
    for job in queue.jobs:
        state = f"  {job.job[:8]}  {job.state:<9}  {job.filename or '-'}  {_detail(job)}"
        lines.append(state.rstrip())
    return "\n".join(lines)


def _detail(job: m.JobEntry) -> str:
    if job.state == "accepted":
        return f"{job.position} before it" if job.position else "next"
    if job.state == "running":
        eta = f", about {job.eta_s:.0f} s to go" if job.eta_s is not None else ""
        return f"{job.phase} {job.step}/{job.of}{eta}" if job.phase else "starting"
    return job.what
