# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import functools

import pytest

from gsv3d.datasets.processes import run_in_processes
from gsv3d.errors import GSV3DError

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
    assert "crashed" in outcomes[1].error and "crashed" in outcomes[6].error
    assert outcomes[3].error == "It is bad."
    assert "ZeroDivisionError: division by zero" in outcomes[4].error


def test_a_process_that_cannot_start_and_a_full_disk_end_the_run_in_words() -> None:
    with pytest.raises(GSV3DError, match="could not start: NameError: .*engine"):
        list(run_in_processes(functools.partial(eval, "engine"), ["1"], 1))
    with pytest.raises(GSV3DError, match="No space left"):
        list(run_in_processes(EVALUATE, [FULL, "1"], 1))


def test_ctrl_c_is_the_business_of_who_started_the_processes() -> None:
    """A console sends it to all of them: they go on until they are told to end."""
    interrupt = "(__import__('signal').raise_signal(__import__('signal').SIGINT), 7)[1]"
    values = [o.value for o in run_in_processes(EVALUATE, [interrupt, "2"], 1)]
    assert values == [7, 2]


def test_no_tasks_no_processes() -> None:
    assert list(run_in_processes(EVALUATE, [], 3)) == []
    with pytest.raises(ValueError, match="workers"):
        list(run_in_processes(EVALUATE, ["1"], 0))
