# SPDX-License-Identifier: Apache-2.0
"""`gsv3d-backend serve`: run the backend in this process."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import time
from typing import Any

from . import pair_command, values
from .logs import BACKEND, FOLDER, log_to
from .protocol.pairing import DEFAULT_PORT

#: Files and connections that may be open where the system allows it.
OPEN_FILES = 8192


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Add the command to a parser."""
    serve = commands.add_parser("serve", parents=[shared], help="run the backend in this process")
    serve.add_argument(
        "--port", type=values.port, default=0, help="port on 127.0.0.1 (default: free)"
    )
    serve.add_argument(
        "--listen",
        type=values.address,
        metavar="HOST[:PORT]",
        help="listen at an address of this computer for other computers too, which are let in "
        "once they are paired (default: for this computer alone; default port: "
        f"{DEFAULT_PORT})",
    )
    serve.add_argument(
        "--metrics",
        type=values.port,
        metavar="PORT",
        help="serve figures for Prometheus on this port of 127.0.0.1 (default: none)",
    )
    serve.add_argument(
        "--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)"
    )
    serve.add_argument(
        "--workers",
        type=values.count_or_auto,
        default="auto",
        metavar="N",
        help="processes that do jobs at the same time (default: auto, one for each card)",
    )
    serve.add_argument(
        "--ray",
        default="",
        metavar="HOST:PORT",
        help="run the workers on the machines of a Ray cluster, one for each of its cards",
    )
    serve.add_argument(
        "--memory",
        choices=("auto", "24", "12", "8"),
        default="auto",
        help="GB of the card's memory that a model may take; less is slower (default: %(default)s,"
        " by what is free)",
    )
    serve.add_argument(
        "--text-model",
        type=values.path_or_id,
        default=os.environ.get("GSV3D_TEXT_MODEL", ""),
        metavar="PATH_OR_ID",
        help="makes pictures of words: a text-to-image pipeline of diffusers on this computer "
        "(default: the variable GSV3D_TEXT_MODEL)",
    )
    serve.add_argument(
        "--threads",
        type=values.count,
        metavar="N",
        help="CPU threads of each worker (default: its share of all cores but one, which is left "
        "to Blender)",
    )
    serve.add_argument(
        "--stall",
        type=values.seconds,
        default=1800.0,
        metavar="SECONDS",
        help="end a worker that is silent for so long while it works (default: 1800)",
    )
    serve.add_argument(
        "--keep-alive",
        type=values.positive,
        default=15.0,
        metavar="MINUTES",
        help="free the model's memory after so long without a job (default: 15)",
    )
    serve.add_argument(
        "--keep-days",
        type=values.positive,
        default=30.0,
        metavar="DAYS",
        help="forget results and pictures of jobs that ended so long ago (default: 30)",
    )
    serve.add_argument(
        "--keep-gb",
        type=values.positive,
        default=20.0,
        metavar="GB",
        help="delete the oldest when results and pictures take more (default: 20)",
    )
    serve.add_argument(
        "--parent-pid", type=values.pid, metavar="PID", help="end when this process has ended"
    )
    serve.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> int:
    from .server import Server
    from .settings import Settings

    if options.ray:
        from .ray_runner import check_cluster

        check_cluster(options.ray)
    data_dir = options.data_dir.absolute()
    server = Server(
        Settings(
            data_dir=data_dir,
            connection_path=options.connection_file.absolute(),
            port=options.port,
            listen=options.listen,
            metrics=options.metrics,
            device=options.device,
            workers=options.workers,
            memory=options.memory,
            ray=options.ray,
            text_model=options.text_model,
            threads=options.threads,
            parent_pid=options.parent_pid,
            stall_s=options.stall,
            keep_alive_s=60.0 * options.keep_alive,
            keep_days=options.keep_days,
            keep_gb=options.keep_gb,
        )
    )
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: server.stop())
    _allow_many_files()
    # The file is opened with the first line, after the data folder has been made and locked.
    log_to(data_dir / FOLDER / BACKEND, screen=True)
    # A full disk must not fill the terminal with tracebacks of the log itself.
    logging.raiseExceptions = False
    server.start()
    try:
        print(
            f"gsv3d-backend: listening on {server.connection.endpoint}, "
            f"connection file {options.connection_file}",
            flush=True,
        )
        if options.listen is not None:
            pair_command.show(str(server.pairing.invite(time.monotonic())))
        server.run()
    finally:
        server.close()
    return 0


def _allow_many_files() -> None:
    """Raise the limit of open files, some of which silent connections take."""
    try:
        import resource
    except ImportError:
        return  # Windows has no such limit
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # macOS may allow less than that
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
