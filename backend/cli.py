# SPDX-License-Identifier: Apache-2.0
"""`gsv3d-backend serve | pair | status | logs | doctor | free | stop`.

Exit codes: 0 done; 1 it could not be done, one sentence on standard error says why; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import platformdirs

from . import pair_command
from .conversation import converse
from .errors import BackendError
from .logs import BACKEND, FOLDER, last_lines, log_to
from .protocol import (
    ClientSession,
    Connection,
    ProtocolError,
    limits,
    parse_address,
    process_exists,
)
from .protocol import messages as m
from .protocol.connection_file import FILE_NAME
from .protocol.fields import to_map
from .protocol.pairing import DEFAULT_PORT

#: Seconds to wait for the end of the backend.
END_S = 15.0
#: Files and connections that may be open where the system allows it.
OPEN_FILES = 8192


def default_data_dir() -> Path:
    """Return the user's data folder of GSV3D."""
    return Path(platformdirs.user_data_dir("gsv3d"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parser().parse_args(arguments)
    if options.connection_file is None:
        options.connection_file = (options.data_dir or default_data_dir()) / FILE_NAME
    try:
        return options.run(options)
    except (BackendError, ProtocolError) as error:
        _say(str(error))
        return 1


def _say(sentence: str) -> None:
    print(f"gsv3d-backend: {sentence}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gsv3d-backend",
        description="The local service that turns pictures into 3D for Blender.",
    )
    commands = parser.add_subparsers(
        required=True, metavar="serve | pair | status | logs | doctor | free | stop"
    )
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--connection-file",
        type=_path,
        metavar="FILE",
        help=f"where the address and the keys are written (default: {FILE_NAME} in the data dir)",
    )
    shared.add_argument(
        "--data-dir",
        type=_path,
        metavar="DIR",
        help=f"where jobs, results and logs are kept (default: {default_data_dir()})",
    )
    serve = commands.add_parser("serve", parents=[shared], help="run the backend in this process")
    serve.add_argument("--port", type=_port, default=0, help="port on 127.0.0.1 (default: free)")
    serve.add_argument(
        "--listen",
        type=_address,
        metavar="HOST[:PORT]",
        help="listen at an address of this computer for other computers too, which are let in "
        "after they were paired (default: for this computer alone; default port: "
        f"{DEFAULT_PORT})",
    )
    serve.add_argument(
        "--metrics",
        type=_port,
        metavar="PORT",
        help="serve figures for Prometheus on this port of 127.0.0.1 (default: none)",
    )
    serve.add_argument(
        "--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)"
    )
    serve.add_argument(
        "--workers",
        type=_count_or_auto,
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
        type=_path_or_id,
        default=os.environ.get("GSV3D_TEXT_MODEL", ""),
        metavar="PATH_OR_ID",
        help="makes pictures of words: a text-to-image pipeline of diffusers on this computer "
        "(default: the variable GSV3D_TEXT_MODEL)",
    )
    serve.add_argument(
        "--threads",
        type=_count,
        metavar="N",
        help="CPU threads of each worker (default: its share of all cores but one, which is left "
        "to Blender)",
    )
    serve.add_argument(
        "--stall",
        type=_seconds,
        default=1800.0,
        metavar="SECONDS",
        help="end a worker that says nothing for so long while it works (default: 1800)",
    )
    serve.add_argument(
        "--keep-alive",
        type=_positive,
        default=15.0,
        metavar="MINUTES",
        help="free the model's memory after so long without a job (default: 15)",
    )
    serve.add_argument(
        "--keep-days",
        type=_positive,
        default=30.0,
        metavar="DAYS",
        help="forget results and pictures of jobs that ended so long ago (default: 30)",
    )
    serve.add_argument(
        "--keep-gb",
        type=_positive,
        default=20.0,
        metavar="GB",
        help="forget those of the oldest when all take more disk space (default: 20)",
    )
    serve.add_argument(
        "--parent-pid", type=_pid, metavar="PID", help="end when this process has ended"
    )
    serve.set_defaults(run=_serve)
    pair_command.add(commands, shared)
    status = commands.add_parser("status", parents=[shared], help="show the backend and its jobs")
    status.add_argument("--json", action="store_true", help="print one JSON object")
    status.add_argument("--watch", action="store_true", help="show it anew at every change")
    status.set_defaults(run=_status)
    logs = commands.add_parser("logs", parents=[shared], help="show the ends of all logs")
    logs.add_argument(
        "--lines", type=_count, default=50, metavar="N", help="most lines of a log (default: 50)"
    )
    logs.add_argument("--job", type=_job_id, metavar="ID", help="a job, or how its id begins")
    logs.set_defaults(run=_logs)
    doctor = commands.add_parser(
        "doctor", parents=[shared], help="look at all a backend needs, and say what to do"
    )
    doctor.set_defaults(run=_doctor)
    free = commands.add_parser(
        "free", parents=[shared], help="free the memory of models that no job is using"
    )
    free.set_defaults(run=_free)
    stop = commands.add_parser("stop", parents=[shared], help="end the backend; jobs wait")
    stop.set_defaults(run=_stop)
    return parser


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port: give a number from 1 to 65535")
    return int(text)


def _address(text: str) -> tuple[str, int]:
    try:
        return parse_address(text)
    except ProtocolError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1 to 1024")
    return int(text)


def _count_or_auto(text: str) -> int | str:
    return text if text == "auto" else _count(text)


def _job_id(text: str) -> str:
    if not text or len(text) > 32 or set(text) - set("0123456789abcdef"):
        raise argparse.ArgumentTypeError(f"'{text}' is not how a job's id begins (0-9, a-f)")
    return text


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError(
            "the path is empty; a variable of the shell may not be set"
        )
    return Path(text)


def _path_or_id(text: str) -> str:
    if len(text) > limits.PATH_CHARS or not text.isprintable():
        raise argparse.ArgumentTypeError(
            f"a text-to-image model is named by at most {limits.PATH_CHARS} printable characters"
        )
    text = text.strip()
    return os.path.abspath(text) if os.path.exists(text) else text  # the worker's folder is another


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0")
    return value


def _seconds(text: str) -> float:
    if not text.isascii() or not text.isdigit() or not 10 <= int(text) <= 86400:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds from 10 to 86400")
    return float(text)


def _pid(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) < 2**32:
        raise argparse.ArgumentTypeError(f"'{text}' is not a process id")
    return int(text)


# --- serve ---------------------------------------------------------------------------------------


def _serve(options: argparse.Namespace) -> int:
    from .server import Server
    from .settings import Settings

    if options.parent_pid is not None and not process_exists(options.parent_pid):
        raise BackendError(
            f"There is no process {options.parent_pid} to serve.",
            "Give the id of a running process as --parent-pid, or leave it out.",
        )
    if options.ray:
        from .ray_runner import check_cluster

        check_cluster(options.ray)
    data_dir = (options.data_dir or default_data_dir()).absolute()
    server = Server(
        Settings(
            data_dir=data_dir,
            connection_path=options.connection_file.absolute(),
            port=options.port,
            listen=options.listen,
            metrics=options.metrics,
            device=options.device,
            workers=None if options.workers == "auto" else options.workers,
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
    """Raise the limit of open files: connections that never say who they are take some of them."""
    try:
        import resource
    except ImportError:
        return  # Windows has no such limit
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # macOS may allow less than that
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


# --- status and stop -----------------------------------------------------------------------------


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


def _logs(options: argparse.Namespace) -> int:
    data_dir = options.data_dir or default_data_dir()
    lines = list(last_lines(data_dir, options.lines, options.job or ""))
    if not lines:
        of = f" of a job {options.job}" if options.job else ""
        raise BackendError(
            f"There is no line{of} in the logs in {data_dir / FOLDER}.",
            "Name the backend's data folder with --data-dir.",
        )
    for line in lines:
        print(line)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from .doctor import findings

    well = True
    for finding in findings(options.data_dir or default_data_dir(), options.connection_file):
        print(finding, flush=True)
        well = well and not finding.hint
    return 0 if well else 1


def _free(options: argparse.Namespace) -> int:
    def ask(session: ClientSession) -> None:
        session.free()
        session.status()

    conversation = converse(options.connection_file, ask)
    next(said for said in conversation if isinstance(said[2], m.Queue))
    print("gsv3d-backend: workers without a job are ended.")
    return 0


def _stop(options: argparse.Namespace) -> int:
    conversation = converse(options.connection_file, lambda session: session.shutdown())
    connection = next(said[0] for said in conversation if isinstance(said[2], m.Bye))
    end = time.monotonic() + END_S
    # The file goes last; an ended process that nobody has waited for would still be listed.
    while connection.alive and options.connection_file.exists():
        if time.monotonic() > end:
            raise BackendError(
                f"The backend (process {connection.pid}) was asked to end and still runs.",
                "Wait a little; if it stays, end that process.",
            )
        time.sleep(0.05)
    print("gsv3d-backend: the backend has ended.")
    return 0
