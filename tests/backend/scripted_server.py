# SPDX-License-Identifier: Apache-2.0
"""``scripted_server.py CONNECTION DATA PARENT``: a backend process with the scripted worker."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from backend.server import Server
from backend.settings import Settings


def main() -> None:
    connection, data, parent = sys.argv[1:]
    worker = [sys.executable, str(Path(__file__).with_name("scripted_worker.py"))]
    settings = Settings(Path(data), Path(connection), parent_pid=int(parent), worker_command=worker)
    server = Server(settings)
    server.start()
    try:
        server.run()
    finally:
        server.close()


if __name__ == "__main__":
    main()
