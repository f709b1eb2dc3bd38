# SPDX-License-Identifier: Apache-2.0
"""The server with a real client, real sockets and a worker process that follows a script."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
import pytest

from backend.protocol import ProtocolError, Received, Violation
from backend.protocol import messages as m
from tests.backend.client import Client
from tests.backend.conftest import Start, make_script
from tests.backend.scripted_worker import make_gaussians, make_mesh


def test_a_job_gives_all_its_results_in_order(tmp_path: Path, run_server: Start) -> None:
    with Client(run_server(tmp_path).path) as client:
        job = client.session.submit(
            make_script(coarse_at=[2], gaussians=30_000), filename="Stuhl ü.png", seed=3,
            files=("glb", "ply"),
        )  # fmt: skip
        done = client.wait_for(m.Done)
        assert done.job == job and done.timings == {"denoising": 1.0, "total": 2.0}
        events = client.list_events(job)
        assert isinstance(events[0], m.Accepted) and events[0].position == 0
        finals = [e for e in client.list_results(job) if getattr(e.artifact, "final", True)]
        assert [e.kind for e in finals] == ["views", "gaussians", "mesh", "file", "file"]
        for name, array in make_gaussians(30_000, 3).items():
            np.testing.assert_array_equal(finals[1].arrays[name], array)
        for name, array in make_mesh(64).items():
            np.testing.assert_array_equal(finals[2].arrays[name], array)
        assert finals[4].arrays["data"].tobytes() == b"data of ply"
        steps = [e.step for e in events if isinstance(e, m.Progress) and e.phase == "denoising"]
        assert steps and steps == sorted(steps)  # a newer one may have taken the last one's place
        assert not [e for e in client.events if isinstance(e, Violation)]
        welcome = client.session.welcome
        assert welcome.device == "scripted" and welcome.models[0].name == "blockout"


def test_models_are_told_of_as_they_come_and_go(tmp_path: Path, run_server: Start) -> None:
    def names(client: Client) -> list[str]:
        welcome = client.session.welcome
        return [model.name for model in welcome.models] if welcome else []

    added = tmp_path / "data" / "logs" / "mine.model"
    with Client(run_server(tmp_path).path) as client:
        client.wait_for(lambda e: isinstance(e, m.Welcome) and e.models)
        assert names(client) == ["blockout"] and not client.session.welcome.models[0].decoder
        job = client.session.submit(make_script(steps=400, step_s=0.02))
        client.wait_for(m.Progress)
        added.touch()
        client.wait_for(lambda _: "mine" in names(client))
        assert not [e for e in client.events if isinstance(e, m.Done)]
        client.session.cancel(job)
        client.wait_for(m.Cancelled)
        added.unlink()
        client.wait_for(lambda e: isinstance(e, m.Welcome) and names(client) == ["blockout"])


def test_jobs_are_done_in_order_and_the_queue_is_visible(tmp_path: Path, run_server: Start) -> None:
    with Client(run_server(tmp_path).path) as client:
        jobs = [
            client.session.submit(make_script(step_s=0.05), filename=f"{i}.png") for i in range(3)
        ]
        client.wait_for(lambda e: isinstance(e, m.Progress))
        client.session.status()
        queue = client.wait_for(m.Queue)
        assert [(e.filename, e.state, e.position) for e in queue.jobs] == [
            ("0.png", "running", 0), ("1.png", "accepted", 1), ("2.png", "accepted", 2),
        ]  # fmt: skip
        client.wait_for(m.Done, job=jobs[2])
        assert [e.job for e in client.events if isinstance(e, m.Done)] == jobs


def test_submitting_twice_is_submitting_once(tmp_path: Path, run_server: Start) -> None:
    running = run_server(tmp_path)
    with Client(running.path) as client:
        job = client.session.submit(make_script(), job=uuid.uuid4().hex)
        client.session.submit(make_script(steps=9), job=job)
        client.wait_for(m.Accepted)
        client.session.submit(make_script(steps=9), job=job)
        client.wait_for(m.Done)
        client.session.submit(make_script(steps=9), job=job)
        first = client.wait_for(m.Done)
        client.wait_for(lambda e: isinstance(e, m.Done) and e is not first)
        client.session.status()
        assert [e.job for e in client.wait_for(m.Queue).jobs] == [job]
        steps = {e.of for e in client.list_events(job) if isinstance(e, m.Progress)}
        assert steps <= {5, 1}


def test_cancel_waiting_running_and_unknown(tmp_path: Path, run_server: Start) -> None:
    running = run_server(tmp_path, grace_s=600)
    with Client(running.path) as client:
        first = client.session.submit(make_script(steps=2000, step_s=0.02))
        second = client.session.submit(make_script(steps=2000, step_s=0.02))
        client.wait_for(m.Progress)
        pid = running.server.workers.all[0].worker.pid
        client.session.cancel(second)
        assert client.wait_for(m.Cancelled).job == second
        client.session.cancel(first)
        client.wait_for(m.Cancelled, job=first)
        client.session.cancel(uuid.uuid4().hex)
        assert client.wait_for(m.Error).code == "unknown_job"
        third = client.session.submit(make_script())
        client.wait_for(m.Done, job=third)
        assert isinstance(client.list_events(first)[-1], m.Cancelled), "nothing of it comes later"
        assert running.server.workers.all[0].worker.pid == pid, "a soft cancel keeps the worker"
        for job in (first, second):
            left = [path.name for path in running.server.store.folder(job).iterdir()]
            assert sorted(left) == ["picture", "record"], "a cancelled job can be done again"


def test_failures_of_a_job_are_told_in_words(tmp_path: Path, run_server: Start) -> None:
    with Client(run_server(tmp_path).path) as client:
        client.session.submit(make_script(fail_at=2))
        failed = client.wait_for(m.Failed)
        assert (failed.what, failed.hint) == (
            "There is no object in the picture.", "Use another picture.",
        )  # fmt: skip
        fault = client.session.submit(make_script(fault_at=2), filename="chair.png")
        failed = client.wait_for(m.Failed, job=fault)
        assert "fault of GSV3D" in failed.what and "ZeroDivisionError" in failed.why
        assert "Traceback" not in failed.what + failed.why + failed.hint
        log = tmp_path / "data" / "logs" / "worker.log"
        assert "Traceback" in log.read_text(encoding="utf-8")


def test_a_picture_that_is_gone_is_named(tmp_path: Path, run_server: Start) -> None:
    """Take the picture away while the job waits, as a scanner may."""
    running = run_server(tmp_path)
    with Client(running.path) as client:
        first = client.session.submit(make_script(hold=str(tmp_path / "go")))
        gone = client.session.submit(make_script())
        client.wait_for(m.Accepted, job=gone)
        running.server.store.picture(gone).unlink()
        (tmp_path / "go").touch()
        failed = client.wait_for(m.Failed)
        assert failed.job == gone and "picture" in failed.what and failed.hint == "Submit it again."
        client.wait_for(m.Done, job=first)


def test_results_wait_until_they_are_forgotten(tmp_path: Path, run_server: Start) -> None:
    running = run_server(tmp_path)
    with Client(running.path, capabilities=()) as client:
        job = client.session.submit(make_script(coarse_at=[1, 2, 3]))
        client.wait_for(m.Done)
        assert not [e for e in client.events if isinstance(e, Received)], "nothing was asked for"
    folder = running.server.store.folder(job)
    assert len(list(folder.glob("*.bin"))) == 3, "coarse results are not kept"
    with Client(running.path) as client:
        client.session.fetch(job)
        client.wait_for(m.Done)
        kinds = [e.kind for e in client.list_results(job)]
        assert kinds == ["views", "gaussians", "mesh"]
        client.session.ack(job)
        client.session.status()
        assert client.wait_for(m.Queue).jobs[0].state == "fetched"
    with Client(running.path) as client:
        client.session.fetch(job)
        client.wait_for(m.Done)
        assert [e.kind for e in client.list_results(job)] == kinds
        client.session.forget(job)
        assert client.wait_for(m.Forgotten).job == job
        assert not folder.exists()
        client.session.fetch(job)
        assert client.wait_for(m.Error).code == "unknown_job"


def test_an_older_clients_ack_forgets_the_job(tmp_path: Path, run_server: Start) -> None:
    running = run_server(tmp_path)
    with Client(running.path, versions=(3,)) as client:
        job = client.session.submit(make_script())
        client.wait_for(m.Done)
        client.session.forget(job)  # becomes an ack: this version has no forget
        client.session.status()
        assert client.wait_for(m.Queue).jobs == ()
        assert not running.server.store.folder(job).exists()
        with pytest.raises(ProtocolError, match="older than the add-on"):
            client.session.retry(job)


def test_a_client_that_comes_back_on_a_new_socket_gets_its_job(
    tmp_path: Path, run_server: Start
) -> None:
    running = run_server(tmp_path)
    with Client(running.path) as client:
        job = client.session.submit(make_script(steps=40, step_s=0.02))
        client.wait_for(m.Progress)
        session = client.session
    with Client(running.path, session) as client:
        assert client.wait_for(m.Done).job == job
        assert {e.kind for e in client.events if isinstance(e, Received)} == {
            "views", "gaussians", "mesh",
        }  # fmt: skip


def test_eta_counts_down(tmp_path: Path, run_server: Start) -> None:
    with Client(run_server(tmp_path).path) as client:
        for _ in range(2):
            job = client.session.submit(make_script(steps=15, step_s=0.04))
            client.wait_for(m.Done, job=job)
        reports = [e for e in client.list_events(job) if isinstance(e, m.Progress)]
        etas = [e.eta_s for e in reports if e.phase == "denoising" and e.eta_s is not None]
        assert etas[0] > etas[-1] and etas[0] > 0.1
        fractions = [e.fraction for e in reports]
        assert fractions == sorted(fractions) and 0 < fractions[-1] <= 1


def test_heartbeats_go_both_ways(tmp_path: Path, run_server: Start, monkeypatch) -> None:
    for module in ("backend.protocol.limits", "backend.protocol.session"):
        monkeypatch.setattr(f"{module}.HEARTBEAT_S", 0.2)
    running = run_server(tmp_path)
    with Client(running.path) as client:
        client.wait_for(m.Welcome)
        peer = next(iter(running.server.clients.peers.values()))
        first = peer.last_heard
        while peer.last_heard <= first:
            client.step()
        # A client that says nothing by itself is asked.
        client.flush()
        asked = False
        while not asked:
            assert client.socket.poll(60_000)
            asked = b"ping" in client.socket.recv_multipart()[1]


@pytest.mark.parametrize(("versions", "holes"), [((4,), False), ((4, 5), True)])
def test_an_older_client_gets_the_mesh_without_the_holes_of_its_texture(
    tmp_path: Path, run_server: Start, versions: tuple[int, ...], holes: bool
) -> None:
    with Client(run_server(tmp_path).path, versions=versions) as client:
        job = client.session.submit(make_script(steps=1, holes=True, texture=16))
        client.wait_for(m.Done, job=job)
        (mesh,) = client.list_results(job, "mesh")
        texture = np.random.default_rng(16).integers(0, 256, (16, 16, 3), np.uint8)
        np.testing.assert_array_equal(mesh.arrays["texture"], texture)
        assert ("alpha" in mesh.arrays) == holes
        if holes:
            np.testing.assert_array_equal(mesh.arrays["alpha"], texture[..., 0])
