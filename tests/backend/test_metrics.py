# SPDX-License-Identifier: Apache-2.0
"""Figures for Prometheus, read as it reads them."""

from __future__ import annotations

import sys
import time
import urllib.request
from pathlib import Path

import pytest
import zmq
from prometheus_client.parser import text_string_to_metric_families

from backend.errors import BackendError
from backend.protocol import messages as m
from backend.server import Server
from backend.settings import Settings
from tests.backend.client import Client
from tests.backend.conftest import Start, make_script
from tests.backend.test_pairing import find_free_port


def read_figures(port: int) -> dict[tuple[str, ...], float]:
    url = f"http://127.0.0.1:{port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_jobs_stages_workers_and_memory(tmp_path: Path, run_server: Start) -> None:
    port = find_free_port()
    with Client(run_server(tmp_path, metrics=port).path) as client:
        first = client.session.submit(make_script())
        client.wait_for(m.Done, job=first)
        client.session.submit(make_script(steps=2, hang_at=1))
        client.session.submit(make_script())
        expected = {
            ("gsv3d_jobs", "running"): 1,
            ("gsv3d_jobs", "done"): 1,
            ("gsv3d_jobs", "failed"): 0,
            ("gsv3d_queue_length",): 1,
            ("gsv3d_jobs_ended_total", "done"): 1,
            # What the scripted worker says of itself.
            ("gsv3d_stage_seconds_total", "denoising"): 1.0,
            ("gsv3d_stage_seconds_total", "total"): 2.0,
            ("gsv3d_clients",): 1,
        }
        end, seen = time.monotonic() + 60, {}
        while not (
            expected.items() <= seen.items()
            and seen[("gsv3d_workers",)] >= 1
            and seen[("gsv3d_memory_bytes", "backend")] > 10e6
            and seen[("gsv3d_memory_bytes", "workers")] > 10e6
        ):  # figures are set one after the other, and may be read meanwhile
            assert time.monotonic() < end, seen
            client.step()
            seen = read_figures(port)
        client.session.forget(first)
        client.wait_for(m.Forgotten)
    assert read_figures(port)[("gsv3d_jobs_ended_total", "done")] == 1, "it only grows"


def test_the_port_is_closed_again_and_one_in_use_is_named(tmp_path: Path) -> None:
    port = find_free_port()
    for _ in range(2):
        server = Server(Settings(tmp_path, tmp_path / "c.json", metrics=port))
        server.start()
        server.close()
    with zmq.Context() as context, context.socket(zmq.REP) as socket:
        socket.bind(f"tcp://127.0.0.1:{port}")
        with pytest.raises(BackendError, match=f"Port {port} of 127.0.0.1.*--metrics"):
            Server(Settings(tmp_path, tmp_path / "c.json", metrics=port)).start()


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(BackendError, match=r"gsv3d\[metrics\]"):
        Server(Settings(tmp_path, tmp_path / "c.json", metrics=find_free_port())).start()
