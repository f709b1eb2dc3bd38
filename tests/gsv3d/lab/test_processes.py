# SPDX-License-Identifier: Apache-2.0
"""Tasks in processes of their own: crashes, temporary files, full disks and Ctrl+C."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from gsv3d.errors import GSV3DError
from gsv3d.lab.processes import run_in_processes

EVALUATE = functools.partial(eval, "eval")
"""Makes, in the worker, a function that evaluates its task: nothing of this file has to be sent."""

RAISE = "(_ for _ in ()).throw({})"
CRASH = "__import__('os')._exit(9)"
BAD = RAISE.format("__import__('gsv3d.errors').errors.DataError('It is bad.')")
FULL = RAISE.format("OSError(28, 'No space left on device')")


def test_a_crash_or_an_error_fails_its_task_alone() -> None:
    tasks = ["1", CRASH, "2 * 2", BAD, "1 / 0", "9", CRASH, "16"]
    outcomes = {o.index: o for o in run_in_processes(EVALUATE, tasks, 2)}
    assert sorted(outcomes) == list(range(8))
    assert [outcomes[i].value for i in (0, 2, 5, 7)] == [1, 4, 9, 16]
    crashed = f"{CRASH}: it crashed the process that worked on it (exit code 9)."
    assert outcomes[1].error == outcomes[6].error == crashed
    assert outcomes[3].error == "It is bad."
    why = "an unexpected error (ZeroDivisionError: division by zero)"
    assert outcomes[4].error == f"1 / 0: {why}."


def test_messages_call_a_task_as_they_are_told() -> None:
    tasks = ["__import__('os').abort()", "1 / 0"]
    outcomes = run_in_processes(EVALUATE, tasks, 1, describe=lambda task: f"task {len(task)}")
    errors = [outcome.error for outcome in outcomes]
    assert errors[0].startswith("task 24: it crashed the process that worked on it (")
    assert os.name == "nt" or errors[0].endswith("(aborted).")
    assert errors[1].startswith("task 5: an unexpected error")


def test_temporary_files_of_crashed_and_killed_processes_are_removed(tmp_path, monkeypatch) -> None:
    """Blender's files, which follow the environment, are removed too."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    make = "__import__('tempfile').mkdtemp()"
    seen = f"({make}, __import__('os').environ['TMPDIR'])"
    outcomes = list(run_in_processes(EVALUATE, [seen, f"({make}, {CRASH})"], 1))
    folder, variable = outcomes[0].value
    assert Path(folder).parent == Path(variable) and Path(variable).parent == tmp_path
    assert outcomes[1].error
    stopped = run_in_processes(EVALUATE, ["1", f"({make}, __import__('time').sleep(600))"], 2)
    assert next(stopped).value == 1
    stopped.close()
    assert list(tmp_path.iterdir()) == []


def test_no_room_for_temporary_files_is_told(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(GSV3DError, match="no room for temporary files: "):
        list(run_in_processes(EVALUATE, ["1"], 1))


PROGRAM = """
import functools, threading
from gsv3d.lab.processes import run_in_processes
done = threading.Event()  # an interrupted Thread.join takes its thread for ended
def run():
    sleep = "__import__('time').sleep(1)"
    try:
        list(run_in_processes(functools.partial(eval, "eval"), [sleep] * 2, 2))
    finally:
        done.set()
if __name__ == "__main__":
    thread = threading.Thread(target=run)
    if THREAD:
        thread.start()
    try:
        print("ready", flush=True)
        done.wait() if THREAD else run()
    except KeyboardInterrupt:
        pass
    if THREAD:
        done.wait()
"""


@pytest.mark.skipif(os.name == "nt", reason="a console's Ctrl+C cannot be sent there")
@pytest.mark.parametrize("thread", [False, True])
@pytest.mark.parametrize("delay", [0.05, 0.4])
def test_ctrl_c_while_processes_start_prints_no_traceback(thread: bool, delay: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.replace("THREAD", str(thread))],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert b"Traceback" not in errors, errors.decode()


def test_a_process_that_cannot_start_and_a_full_disk_end_the_run_in_words() -> None:
    with pytest.raises(GSV3DError, match="could not start: NameError: .*engine"):
        list(run_in_processes(functools.partial(eval, "engine"), ["1"], 1))
    with pytest.raises(GSV3DError, match="No space left"):
        list(run_in_processes(EVALUATE, [FULL, "1"], 1))


def test_ctrl_c_is_the_business_of_who_started_the_processes() -> None:
    """A console sends Ctrl+C to all processes: workers go on until they are told to end."""
    interrupt = "(__import__('signal').raise_signal(__import__('signal').SIGINT), 7)[1]"
    values = [o.value for o in run_in_processes(EVALUATE, [interrupt, "2"], 1)]
    assert values == [7, 2]


def test_no_tasks_no_processes() -> None:
    assert list(run_in_processes(EVALUATE, [], 3)) == []
    with pytest.raises(ValueError, match="workers"):
        list(run_in_processes(EVALUATE, ["1"], 0))
