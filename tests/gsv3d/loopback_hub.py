# SPDX-License-Identifier: Apache-2.0
"""A hub on loopback with one repository, and the program ``gsv3d`` that fetches from it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REPOSITORY = "stabilityai/sv3d"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONVERTER = [
    sys.executable,
    "-c",
    "import sys; from gsv3d.multiview import convert; convert.UNET_HEAD = 32;"
    " from gsv3d.cli import main; sys.exit(main())",
]
"""``gsv3d``, whose networks are of the size that ``published.write`` makes."""


class LoopbackHub:
    """A server that answers what the hub's client asks over HTTP.

    Attributes:
        files: contents by name.
        token: without it no file is given; empty for everybody.
        hold: while it is set, files stop in the middle.
    """

    def __init__(self, files: dict[str, bytes], token: str = "") -> None:
        self.files, self.token, self.hold = files, token, threading.Event()
        self.address = ""

    def environment(self) -> dict[str, str]:
        """Return the variables of a program that is to ask this hub and no other."""
        offline = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN")
        kept = {name: value for name, value in os.environ.items() if name not in offline}
        return {**kept, "HF_ENDPOINT": self.address, "NO_PROXY": "127.0.0.1"}


@contextmanager
def serve(files: dict[str, bytes], token: str = "") -> Iterator[LoopbackHub]:
    """Serve a repository of these files for as long as the block runs."""
    hub = LoopbackHub(files, token)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == f"/api/models/{REPOSITORY}":
                self._answer(200, json.dumps(_describe(files)).encode())
                return
            found = re.fullmatch(rf"/{REPOSITORY}/resolve/{COMMIT}/(.+)", path)
            if found is None or found[1] not in files:
                self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            elif hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
                self._answer(401, b"", {"X-Error-Code": "GatedRepo"})
            else:
                self._send_file(files[found[1]])

        def _send_file(self, content: bytes) -> None:
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{_hash(content)}"'}
            begin = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(begin[1]) if begin else 0
            if begin:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._answer(206 if begin else 200, content[start:], headers)

        def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            half = len(body) // 2
            try:
                self.wfile.write(body[:half])
                while hub.hold.is_set() and len(body) > 10_000:
                    hub.hold.wait(0.02)
                    self.wfile.flush()
                    if not hub.hold.is_set() or self._gone():
                        break
                self.wfile.write(body[half:])
            except OSError:
                pass  # who asked has gone

        def _gone(self) -> bool:
            self.connection.settimeout(0.02)
            try:
                return self.connection.recv(1) == b""
            except TimeoutError:
                return False
            finally:
                self.connection.settimeout(None)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hub
    finally:
        hub.hold.clear()
        server.shutdown()
        thread.join()
        server.server_close()


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _describe(files: dict[str, bytes]) -> dict[str, object]:
    siblings = [
        {
            "rfilename": name,
            "size": len(content),
            "blobId": "0",
            "lfs": {"sha256": _hash(content), "size": len(content), "pointerSize": 100},
        }
        for name, content in files.items()
    ]
    return {"id": REPOSITORY, "sha": COMMIT, "siblings": siblings}
