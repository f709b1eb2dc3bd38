# SPDX-License-Identifier: Apache-2.0
"""Settings of threads, as OpenMP reports them itself (OMP_DISPLAY_ENV)."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref

import psutil
import pytest

from gsv3d.errors import GSV3DError
from gsv3d.threads import COUNTS, SLEEPING, limit_threads, pause_collecting, usable_cores

COMMAND_LINE = "import gsv3d.cli; gsv3d.cli.main(['models']); import torch"
WORKER = (
    "import backend.worker_runtime as runtime; runtime.serve_jobs = lambda make: make(); "
    "import backend.worker; backend.worker.main([]); import torch"
)


def run(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a process that inherits none of the variables but ``variables``."""
    environment = {k: v for k, v in os.environ.items() if k not in (*SLEEPING, *COUNTS)}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=True,
    )


def report(code: str, **variables: str) -> str:
    """Return what OpenMP says of itself as it is loaded in a process that runs ``code``."""
    done = run(code, OMP_DISPLAY_ENV="verbose", **variables)
    if "OMP_WAIT_POLICY" not in done.stderr:
        pytest.skip("this torch is built without an OpenMP that reports its settings")
    return done.stderr


@pytest.mark.parametrize("code", [COMMAND_LINE, WORKER])
def test_waiting_threads_sleep_in_every_process_of_ours(code: str) -> None:
    said = report(code)
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in said
    if "GOMP_SPINCOUNT" in said:
        assert "GOMP_SPINCOUNT = '0'" in said


def test_numpys_threads_sleep_between_products() -> None:
    code = (
        "from gsv3d.threads import let_threads_sleep, limit_threads\n"
        "let_threads_sleep(); limit_threads(2)\n"
        "import time, numpy as np; a = np.ones((400, 400)); a @ a; used = time.process_time()\n"
        "for _ in range(20): a @ a; time.sleep(0.05)\n"
        "print(time.process_time() - used)"
    )
    assert float(run(code).stdout) < 0.3


@pytest.mark.parametrize(
    ("library", "start"),
    [
        ("numpy", "import backend.worker; backend.worker.main(['--threads=3'])"),
        (  # in a cluster, where Ray has loaded this project before
            "torch",
            "import argparse, backend.ray_runner; backend.ray_runner._make_runner("
            "argparse.Namespace(threads=3, device='cpu', text_model='', memory='auto', share=1))",
        ),
    ],
)
def test_a_workers_threads_are_limited_before_libraries_are_loaded(
    library: str, start: str
) -> None:
    """OpenMP and numpy's OpenBLAS read the variables as they are loaded."""
    code = (
        "import os, sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {library!r}:\n"
        "            sys.exit(os.environ.get('OPENBLAS_NUM_THREADS', 'all'))\n"
        f"sys.meta_path.insert(0, Watch())\n{start}"
    )
    with pytest.raises(subprocess.CalledProcessError) as ended:
        run(code)
    assert ended.value.returncode == 1 and ended.value.stderr == "3\n"


def test_what_the_user_has_set_stays() -> None:
    assert "OMP_WAIT_POLICY = 'ACTIVE'" in report(COMMAND_LINE, OMP_WAIT_POLICY="ACTIVE")


def test_the_worker_leaves_a_core_and_gives_way() -> None:
    code = WORKER + "; import psutil; print(torch.get_num_threads(), int(psutil.Process().nice()))"
    own = psutil.Process().nice()
    threads, priority = map(int, run(code).stdout.split()[-2:])
    assert threads == max(1, usable_cores() - 1)
    assert priority == (psutil.BELOW_NORMAL_PRIORITY_CLASS if psutil.WINDOWS else max(5, own))


def test_the_number_of_threads_can_be_chosen() -> None:
    code = (
        "from gsv3d.threads import limit_threads; limit_threads({}); import torch; "
        "print(torch.get_num_threads())"
    )
    assert run(code.format(1), OMP_NUM_THREADS="2").stdout.strip() == "1"
    assert run(code.format(""), OMP_NUM_THREADS="1", MKL_NUM_THREADS="1").stdout.strip() == "1"
    # One variable is enough, whichever of them torch reads first.
    count = str(usable_cores() + 1)
    for variables in ({"OMP_NUM_THREADS": count}, {"MKL_NUM_THREADS": count},
                      {"OMP_NUM_THREADS": f"{count},1"}):  # fmt: skip
        assert run(code.format(""), MKL_DYNAMIC="FALSE", **variables).stdout.strip() == count


def test_no_threads_are_refused() -> None:
    with pytest.raises(GSV3DError, match="at least 1, not 0"):
        limit_threads(0)


class Node:
    def __init__(self) -> None:
        self.me = self  # only the collector gets rid of it


def test_imported_objects_are_left_out_of_garbage_collection() -> None:
    try:
        with pytest.raises(ImportError), pause_collecting():
            assert not gc.isenabled()
            kept = weakref.ref(Node())
            raise ImportError
        assert gc.isenabled()
        later = weakref.ref(Node())
        gc.collect()
        assert kept() is not None
        assert later() is None
    finally:
        gc.unfreeze()
