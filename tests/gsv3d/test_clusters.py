# SPDX-License-Identifier: Apache-2.0
"""Tasks on a local Ray cluster of two nodes, one of which is lost."""

from __future__ import annotations

import functools
import importlib.util
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from gsv3d.cli.many import Generator, generate_on_ray
from gsv3d.clusters import connect, run_on_ray
from gsv3d.errors import GSV3DError
from tests import ray_nodes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
]
EVALUATE = functools.partial(eval, "eval")
NODE = "__import__('ray').get_runtime_context().get_node_id()"


@pytest.fixture(scope="module")
def cluster():
    with ray_nodes.start_nodes(1, 1) as made:
        yield made


def meet(folder: Path, name: str, stay: str) -> str:
    """Write the node's name, wait for a file, and return the node's name.

    On a node that the file names it goes on waiting, for two minutes.
    """
    file = f"__import__('pathlib').Path({str(folder / stay)!r})"
    return (
        f"(__import__('pathlib').Path({str(folder / name)!r}).write_text({NODE}), "
        f"[__import__('time').sleep(0.1) for _ in range(1200) "
        f"if not {file}.exists() or {file}.read_text() == {NODE}], {NODE})[-1]"
    )


def test_both_nodes_work_and_errors_fail_their_task_alone(cluster, tmp_path: Path) -> None:
    # Each waits for the other, so one node alone could not end them.
    tasks = [meet(tmp_path, "a", "b"), meet(tmp_path, "b", "a"), "1/0", "6*7"]
    outcomes = {o.index: o for o in run_on_ray(EVALUATE, tasks, cluster.address)}
    assert outcomes[0].value != outcomes[1].value
    assert "ZeroDivisionError" in outcomes[2].error and outcomes[3].value == 42


def test_a_task_that_kills_its_workers_fails_and_one_that_does_once_does_not(
    cluster, tmp_path: Path
) -> None:
    kill = "__import__('os').kill(__import__('os').getpid(), 9)"
    flag = f"__import__('pathlib').Path({str(tmp_path / 'tried')!r})"
    once = f"7 if {flag}.exists() else ({flag}.touch(), {kill})"
    outcomes = {o.index: o for o in run_on_ray(EVALUATE, [kill, once], cluster.address, 1)}
    assert "crashed 2 workers" in outcomes[0].error and outcomes[1].value == 7


def test_a_worker_has_a_processor_for_each_of_its_threads(monkeypatch) -> None:
    """Ray itself lets a process have as many threads as it has processors."""

    def note(**resources: int) -> None:
        asked.append(resources)
        raise InterruptedError

    asked: list[dict[str, int]] = []
    machine = {"CPU": 8.0}
    ray = SimpleNamespace(
        cluster_resources=lambda: machine,
        nodes=lambda: [{"Alive": True, "Resources": machine}],
        remote=note,
    )
    monkeypatch.setattr("gsv3d.clusters.connect", lambda _: ray)
    generator = Generator("blockout", "cpu", "auto", None, ["glb"])
    for threads in (None, 3):
        work = [(Path("a.png"), Path("a"))]
        with pytest.raises(InterruptedError):
            list(generate_on_ray(work, generator, "auto", ["glb"], False, threads))
    assert [resources["num_cpus"] for resources in asked] == [1, 3]


def test_workers_that_cannot_start_end_the_run_in_words(cluster) -> None:
    with pytest.raises(GSV3DError, match="could not start: NameError: .*engine.* Buy one."):
        list(run_on_ray(functools.partial(eval, "engine"), ["1"], cluster.address, 1, "Buy one."))


def test_a_lost_node_loses_no_task(cluster, tmp_path: Path) -> None:
    """Run this test last, since the cluster is smaller after it."""
    tasks = [meet(tmp_path, "a", "go"), meet(tmp_path, "b", "go")]
    lost: list[str] = []

    def lose() -> None:
        while not ((tmp_path / "a").exists() and (tmp_path / "b").exists()):
            time.sleep(0.1)
        lost.append(cluster.nodes[0].node_id)
        (tmp_path / "gone").write_text(lost[0])
        (tmp_path / "gone").rename(tmp_path / "go")
        cluster.remove_node(cluster.nodes[0], allow_graceful=False)

    thread = threading.Thread(target=lose, daemon=True)
    thread.start()
    outcomes = list(run_on_ray(EVALUATE, tasks, cluster.address))
    thread.join()
    assert sorted(o.index for o in outcomes) == [0, 1] and not any(o.error for o in outcomes)
    assert {o.value for o in outcomes}.isdisjoint(lost) and lost


def test_a_cluster_of_another_version_is_one_sentence(monkeypatch) -> None:
    import ray
    from ray._private.utils import check_version_info

    def other(**_: object) -> None:
        check_version_info({"ray_version": "1.0.0", "python_version": "3.7.1"}, "this process")

    monkeypatch.setattr(ray, "init", other)
    with pytest.raises(GSV3DError, match=f"another version of Ray or Python.*{ray.__version__}"):
        connect("auto")


def test_no_cluster_is_one_sentence() -> None:
    with pytest.raises(GSV3DError, match="no Ray cluster to be reached at 127.0.0.1:1 "):
        list(run_on_ray(EVALUATE, ["1"], "127.0.0.1:1"))
    assert list(run_on_ray(EVALUATE, [], "127.0.0.1:1")) == []
