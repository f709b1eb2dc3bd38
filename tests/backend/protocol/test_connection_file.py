# SPDX-License-Identifier: Apache-2.0
"""The connection file: for its user alone, whole or not there, damage told in words."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import platformdirs
import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.protocol import (
    Connection,
    ConnectionFileError,
    default_data_dir,
    read_connection,
    write_connection,
)


def make_connection() -> Connection:
    server, _ = zmq.curve_keypair()
    public, secret = zmq.curve_keypair()
    return Connection(
        "tcp://127.0.0.1:5555", server.decode(), public.decode(), secret.decode(), os.getpid(),
        {"protocol": [1], "backend": "0.1.0"},
    )  # fmt: skip


def test_round_trip_in_a_folder_with_spaces_and_umlauts(tmp_path: Path) -> None:
    path = tmp_path / "Jörgs Ordner 椅子" / "connection.json"
    written = make_connection()
    write_connection(path, written)
    write_connection(path, written)
    assert read_connection(path) == written
    assert [p.name for p in path.parent.iterdir()] == ["connection.json"]
    assert written.client_secret_key not in repr(written)


def test_a_file_that_somebody_reads_just_now_is_written(tmp_path: Path) -> None:
    """A client reads the file of an earlier backend while the next one starts."""
    path = tmp_path / "connection.json"
    write_connection(path, make_connection())
    reading = open(path, "rb")
    ending = threading.Timer(0.3, reading.close)
    ending.start()
    written = make_connection()
    write_connection(path, written)
    ending.join()
    assert read_connection(path) == written


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX; Windows has access lists")
def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "connection.json"
    before = os.umask(0)
    try:
        write_connection(path, make_connection())
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with pytest.raises(ConnectionFileError, match="read by others.*new keys"):
        read_connection(path)


def test_a_missing_file_says_that_no_backend_is_running(tmp_path: Path) -> None:
    with pytest.raises(ConnectionFileError, match="No backend is running.*gsv3d-backend serve"):
        read_connection(tmp_path / "connection.json")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("endpoint", "tcp://10.0.0.1:80"), ("endpoint", "tcp://127.0.0.1:99999"), ("endpoint", 5),
        ("server_public_key", "short"), ("client_secret_key", None), ("pid", -1), ("pid", "1"),
        ("versions", []),
    ],
)  # fmt: skip
def test_damage_is_named(tmp_path: Path, field: str, value: object) -> None:
    path = tmp_path / "connection.json"
    write_connection(path, make_connection())
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, field: value}))
    with pytest.raises(ConnectionFileError, match=f"damaged.*{field}"):
        read_connection(path)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=200))
def test_any_bytes_are_named_as_damaged(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "connection.json"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(ConnectionFileError, match="damaged"):
        read_connection(path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConnectionFileError, match="cannot be written.*--connection-file"):
        write_connection(tmp_path / "file" / "connection.json", make_connection())


def test_the_default_folder_is_the_one_platformdirs_names() -> None:
    assert default_data_dir() == Path(platformdirs.user_data_dir("gsv3d"))
