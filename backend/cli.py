# SPDX-License-Identifier: Apache-2.0
"""`gsv3d-backend serve | pair | status | logs | doctor | free | stop`.

Exit codes: 0 done; 1 it could not be done, one sentence on standard error says why; 2 wrong usage;
130 interrupted.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import time
from collections.abc import Sequence

from . import pair_command, serve_command, status_command, values
from .conversation import ask
from .errors import BackendError
from .logs import FOLDER, last_lines
from .protocol import ClientSession, default_data_dir
from .protocol import messages as m
from .protocol.connection_file import FILE_NAME
from .protocol.errors import WordedError

#: Seconds to wait for the end of the backend.
END_S = 15.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A console of another code page must not turn a file's name into a crash.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    options = _parser().parse_args(arguments)
    if options.connection_file is None:
        options.connection_file = options.data_dir / FILE_NAME
    try:
        code = options.run(options)
        print(end="", flush=True)
        return code
    except WordedError as error:
        print(f"gsv3d-backend: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        # On Windows a closed pipe is EINVAL; errors of files have a name.
        if error.filename is not None or error.errno not in (errno.EPIPE, errno.EINVAL):
            raise
        # Who reads has seen enough, as `head` has.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("gsv3d-backend: Stopped.", file=sys.stderr)
        return 130


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
        type=values.path,
        metavar="FILE",
        help=f"where the address and the keys are written (default: {FILE_NAME} in the data dir)",
    )
    shared.add_argument(
        "--data-dir",
        type=values.path,
        default=default_data_dir(),
        metavar="DIR",
        help="where jobs, results and logs are kept (default: %(default)s)",
    )
    for command in (serve_command, pair_command, status_command):
        command.add(commands, shared)
    logs = commands.add_parser("logs", parents=[shared], help="show the last lines of all logs")
    logs.add_argument(
        "--lines",
        type=values.count,
        default=50,
        metavar="N",
        help="most lines of a log (default: 50)",
    )
    logs.add_argument(
        "--job",
        type=values.job_id,
        metavar="ID",
        help="only this job; the start of its id is enough",
    )
    logs.set_defaults(run=_logs)
    doctor = commands.add_parser(
        "doctor", parents=[shared], help="check all that a backend needs, and say what to do"
    )
    doctor.set_defaults(run=_doctor)
    free = commands.add_parser(
        "free", parents=[shared], help="free the memory of models that no job is using"
    )
    free.set_defaults(run=_free)
    stop = commands.add_parser(
        "stop", parents=[shared], help="end the backend; waiting jobs are kept"
    )
    stop.set_defaults(run=_stop)
    return parser


def _logs(options: argparse.Namespace) -> int:
    lines = list(last_lines(options.data_dir, options.lines, options.job or ""))
    if not lines:
        of = f" of a job {options.job}" if options.job else ""
        raise BackendError(
            f"There is no line{of} in the logs in {options.data_dir / FOLDER}.",
            "Name the backend's data folder with --data-dir.",
        )
    for line in lines:
        print(line)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from .doctor import findings

    well = True
    for finding in findings(options.data_dir, options.connection_file):
        print(finding, flush=True)
        well = well and not finding.hint
    return 0 if well else 1


def _free(options: argparse.Namespace) -> int:
    def request(session: ClientSession) -> None:
        session.free()
        session.status()

    ask(options.connection_file, request, m.Queue)
    print("gsv3d-backend: workers without a job are ended.")
    return 0


def _stop(options: argparse.Namespace) -> int:
    connection, _ = ask(options.connection_file, lambda session: session.shutdown(), m.Bye)
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
