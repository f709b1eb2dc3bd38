# SPDX-License-Identifier: Apache-2.0
"""Workers on a local Ray cluster, one of whose nodes is lost in mid-batch."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.cli import main
from backend.protocol import Received
from backend.protocol import messages as m
from tests import ray_nodes
from tests.backend.client import Client
from tests.backend.conftest import Start, make_script

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Start a head without processors; nodes come later."""
    with ray_nodes.start_nodes(0) as made:
        yield made


def test_a_cluster_without_processors_is_one_sentence(cluster, tmp_path: Path, capfd) -> None:
    """This test is the first, while the cluster has no processors."""
    serve = ["serve", "--data-dir", str(tmp_path / "data"), "--ray"]
    assert main([*serve, cluster.address]) == 1
    assert (
        f"cluster at {cluster.address} has neither processors nor cards" in capfd.readouterr().err
    )


def test_workers_without_cards_are_all_without(cluster, tmp_path: Path, run_server: Start) -> None:
    nodes = [cluster.add_node(**ray_nodes.NODE, num_cpus=1) for _ in range(2)]
    running = run_server(tmp_path, f"--ray={cluster.address}", "--without-cards")
    with Client(running.path) as client:
        client.wait_for(lambda e: isinstance(e, m.Welcome) and e.models)
        commands = [work.worker.command for work in running.server.workers.all]
    assert [command[command.index("--device") + 1] for command in commands] == ["auto", "cpu"]
    for node in nodes:
        cluster.remove_node(node)


def test_no_cluster_is_one_sentence(tmp_path: Path, capfd) -> None:
    assert main(["serve", "--data-dir", str(tmp_path / "data"), "--ray", "127.0.0.1:1"]) == 1
    said = capfd.readouterr().err
    assert "no Ray cluster to be reached at 127.0.0.1:1 " in said and "ray start --head" in said
    assert said.count("\n") == 1


def test_a_lost_node_loses_no_job_of_a_batch(cluster, tmp_path: Path, run_server: Start) -> None:
    nodes = [cluster.add_node(**ray_nodes.NODE, num_cpus=1) for _ in range(2)]
    running = run_server(tmp_path, f"--ray={cluster.address}")
    works = running.server.workers.all
    slow = make_script(steps=40, step_s=0.05, coarse_at=[2])
    with Client(running.path) as client:
        jobs = [client.session.submit(slow, filename=f"{n}.png", seed=n) for n in range(8)]

        def two_at_work(_: object) -> bool:
            return len(works) == 2 and all(w.job is not None and w.job.artifacts for w in works)

        client.wait_for(two_at_work)
        cluster.remove_node(nodes[1], allow_graceful=False)
        for job in jobs:
            client.wait_for(m.Done, timeout=120, job=job)
        done = [e.job for e in client.events if isinstance(e, m.Done)]
        assert sorted(done) == sorted(jobs), "each is done once"
        attempts = [running.server.jobs.get(job).record.attempts for job in jobs]
        assert sorted(attempts) == [1] * 7 + [2], "one was begun again"
        finals = [e for e in client.events if isinstance(e, Received) and e.kind == "mesh"]
        assert sorted(e.job for e in finals) == sorted(jobs)


def test_a_job_that_ends_its_actor_is_tried_twice(
    cluster, tmp_path: Path, run_server: Start
) -> None:
    """The job runs on the node that the test before leaves."""
    running = run_server(tmp_path, f"--ray={cluster.address}", grace_s=600)
    with Client(running.path) as client:
        job = client.session.submit(make_script(die_at=1), filename="bad.png")
        failed = client.wait_for(m.Failed, 120)
        assert failed.job == job and "machine was lost 2 times while it worked on bad.png" in (
            failed.what
        )
        for values, words in (({"fail_at": 1}, "no object"), ({"fault_at": 1}, "fault of GSV3D")):
            job = client.session.submit(make_script(**values))
            told = client.wait_for(m.Failed, timeout=120, job=job)
            assert words in told.what
        job = client.session.submit(make_script(steps=2000, step_s=0.02))
        client.wait_for(m.Progress, job=job)
        client.session.cancel(job)
        assert client.wait_for(m.Cancelled).job == job
