# SPDX-License-Identifier: Apache-2.0
"""The client's socket: CURVE, limits and time-outs set before it connects."""

from __future__ import annotations

from pathlib import Path

import zmq

from .connection_file import Connection
from .limits import CLIENT_FRAME_BYTES


def curve_client(socket: zmq.Socket, connection: Connection) -> None:
    """Set keys and limits of a DEALER that is about to connect."""
    socket.curve_serverkey = connection.server_public_key.encode("ascii")
    socket.curve_publickey = connection.client_public_key.encode("ascii")
    socket.curve_secretkey = connection.client_secret_key.encode("ascii")
    socket.ipv6 = "[" in connection.endpoint
    socket.linger = 0
    socket.maxmsgsize = CLIENT_FRAME_BYTES
    socket.handshake_ivl = 5000
    socket.reconnect_ivl = 100
    socket.reconnect_ivl_max = 2000
    # Messages to a backend that is not there wait here, not in the operating system.
    socket.sndhwm = 64
    socket.rcvhwm = 32


def open_client(context: zmq.Context, connection: Connection) -> zmq.Socket:
    """Return a DEALER connected to the backend of a connection file (zmq connects by itself)."""
    socket = context.socket(zmq.DEALER)
    try:
        curve_client(socket, connection)
        socket.connect(connection.endpoint)
    except BaseException:
        socket.close(0)
        raise
    return socket


def explain_silence(connection: Connection, path: Path | None = None) -> tuple[str, str]:
    """Return (what, hint) for a backend that does not answer. With CURVE a wrong key is silence."""
    if connection.remote:
        return (
            f"No answer from the backend at {connection.endpoint.removeprefix('tcp://')}.",
            "Check that it runs there, started with --listen, and that no firewall is in between; "
            "if it does not know this computer any more, pair again.",
        )
    file = f" ({path})" if path is not None else ""
    if not connection.alive:
        return (
            f"No answer from the backend: its process {connection.pid} has ended.",
            "Start the backend again; its log file says why it ended.",
        )
    return (
        f"No answer from the backend at {connection.endpoint} (process {connection.pid}).",
        f"Either the keys of the connection file{file} are not those of the running backend, "
        "or it hangs, or a firewall blocks the loopback: stop the backend and start it again.",
    )
