# SPDX-License-Identifier: Apache-2.0
"""Tell whether a backend still runs."""

from __future__ import annotations

import sqlite3
from pathlib import Path

JOURNAL = "journal.sqlite"
"""The file in a data folder that a backend has locked as long as it runs."""


def folder_in_use(data_dir: Path) -> bool:
    """Return True while a backend runs on a data folder.

    The lock ends with the process, however it ends. A process id could be another process's by now.
    """
    path = Path(data_dir) / JOURNAL
    try:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", timeout=0, uri=True)
    except sqlite3.OperationalError:
        return False  # there is none
    try:
        database.execute("PRAGMA user_version").fetchone()
        return False
    except sqlite3.OperationalError as error:
        return "locked" in str(error)
    except sqlite3.DatabaseError:
        return False  # damaged: a backend that starts on it says so
    finally:
        database.close()
