# SPDX-License-Identifier: Apache-2.0
"""OpenMP is asked for its settings by its own report (OMP_DISPLAY_ENV)."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gsv3d.threads import SLEEPING

COMMAND_LINE = "import gsv3d.cli; gsv3d.cli.main(['models']); import torch"
WORKER = "import backend.worker as w; w.serve_jobs = lambda make: 0; w.main([]); import torch"


def report(code: str, **variables: str) -> str:
    """Return what OpenMP says of itself as it is loaded in a process that runs ``code``."""
    environment = {k: v for k, v in os.environ.items() if k not in SLEEPING}
    environment |= {"OMP_DISPLAY_ENV": "verbose"} | variables
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    if "OMP_WAIT_POLICY" not in done.stderr:
        pytest.skip("this torch is built without an OpenMP that reports its settings")
    return done.stderr


@pytest.mark.parametrize("code", [COMMAND_LINE, WORKER])
def test_waiting_threads_sleep_in_every_process_of_ours(code: str) -> None:
    said = report(code)
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in said
    if "GOMP_SPINCOUNT" in said:
        assert "GOMP_SPINCOUNT = '0'" in said


def test_what_the_user_has_set_stays() -> None:
    assert "OMP_WAIT_POLICY = 'ACTIVE'" in report(COMMAND_LINE, OMP_WAIT_POLICY="ACTIVE")
