# SPDX-License-Identifier: Apache-2.0
"""The connection file, which tells only its user where the backend listens and its keys.

It is JSON, is never seen half written, and no other user can read it. Pairing with a backend on
another computer writes one that names no process.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .errors import ConnectionFileError
from .fields import Z85_KEY
from .private import write_private
from .processes import folder_in_use

FILE_NAME = "connection.json"
_MAX_BYTES = 64 * 1024
HOST = r"[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]"
_ENDPOINT = re.compile(rf"tcp://({HOST}):([0-9]{{1,5}})\Z")


@dataclass(frozen=True)
class Connection:
    """The contents of the connection file. Keys are Z85 text of 40 characters."""

    endpoint: str  # tcp://HOST:PORT; a backend on this computer is at 127.0.0.1
    server_public_key: str
    client_public_key: str
    client_secret_key: str = field(repr=False)
    pid: int  # of the backend; 0: it runs on another computer
    versions: dict[str, Any]  # {"protocol": [1], "backend": "0.1.0"}
    data_dir: str = ""  # of the backend; empty where it runs on another computer

    def __post_init__(self) -> None:
        if type(self.pid) is not int or not 0 <= self.pid < 2**32:
            raise ConnectionFileError("The field pid must be a process id.")
        match = _ENDPOINT.match(self.endpoint) if isinstance(self.endpoint, str) else None
        if match is None or not 1 <= int(match[2]) <= 65535:
            raise ConnectionFileError("The endpoint must be tcp://HOST:PORT.")
        if not self.remote and match[1] != "127.0.0.1":
            raise ConnectionFileError("The endpoint must be tcp://127.0.0.1:PORT.")
        for name in ("server_public_key", "client_public_key", "client_secret_key"):
            value = getattr(self, name)
            if not isinstance(value, str) or not Z85_KEY.match(value):
                raise ConnectionFileError(f"The field {name} must be a key of 40 characters.")
        if not isinstance(self.versions, dict):
            raise ConnectionFileError("The field versions must be a map.")
        if not isinstance(self.data_dir, str):
            raise ConnectionFileError("The field data_dir must be text.")

    @property
    def remote(self) -> bool:
        """Return whether the backend runs on another computer."""
        return self.pid == 0

    @property
    def host(self) -> str:
        """Return the name or address of the backend's computer."""
        return self.endpoint.removeprefix("tcp://").rpartition(":")[0]

    @property
    def alive(self) -> bool:
        """Return whether the backend that wrote the file runs; True for a remote one."""
        return self.remote or folder_in_use(Path(self.data_dir))


def default_data_dir() -> Path:
    """Return the user's data folder of GSV3D, the one that platformdirs would name."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
        return Path(base) / "gsv3d" / "gsv3d"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "gsv3d"
    base = os.environ.get("XDG_DATA_HOME", "").strip()
    return (Path(base) if base else Path.home() / ".local" / "share") / "gsv3d"


def write_connection(path: Path, connection: Connection) -> None:
    """Write the connection file; other users cannot read it, no reader sees half of it.

    Raises:
        ConnectionFileError: the folder cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_private(path, json.dumps(asdict(connection), indent=1).encode("utf-8"))
    except OSError as error:
        raise ConnectionFileError(
            f"The connection file {path} cannot be written: {error.strerror or error}.",
            "Check that its folder exists, is yours and has space left, "
            "or choose another with --connection-file.",
        ) from error


def read_connection(path: Path) -> Connection:
    """Read a connection file.

    Raises:
        ConnectionFileError: it is missing (no backend runs), cannot be read, is damaged, or
            other users could have read the keys in it.
    """
    path = Path(path)
    restart = "Stop the backend and start it again; it writes a new one."
    try:
        with open(path, "rb") as file:
            _refuse_shared(path, file.fileno())
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ConnectionFileError(
            f"No backend is running: there is no connection file {path}.",
            "Start it with the Start button of the GSV3D panel or with 'gsv3d-backend serve'.",
        ) from error
    except OSError as error:
        raise ConnectionFileError(
            f"The connection file {path} cannot be read: {error.strerror or error}.", restart
        ) from error
    try:
        if len(data) > _MAX_BYTES:
            raise ValueError("too long")
        values = json.loads(data.decode("utf-8"))
        if not isinstance(values, dict):
            raise ValueError("not a map")
        known = {name: values[name] for name in Connection.__dataclass_fields__}
        return Connection(**known)
    except ConnectionFileError as error:
        raise ConnectionFileError(
            f"The connection file {path} is damaged. {error.what}", restart
        ) from error
    except (ValueError, KeyError, RecursionError) as error:
        raise ConnectionFileError(f"The connection file {path} is damaged.", restart) from error


def _refuse_shared(path: Path, descriptor: int) -> None:
    if os.name != "posix":
        return
    status = os.fstat(descriptor)
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ConnectionFileError(
            f"The connection file {path} could be read by others than you.",
            "Delete it, then stop the backend and start it again; it makes new keys.",
        )
