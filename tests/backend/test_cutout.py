# SPDX-License-Identifier: Apache-2.0
"""Pictures cut out: the job, clients and backends of older versions, and the real worker."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.protocol import Received, Violation
from backend.protocol import messages as m
from tests.backend.client import Client
from tests.backend.conftest import RecordedWatch, Start, script


def file_of(client: Client, job: str) -> Received:
    (received,) = [e for e in client.of_job(job) if isinstance(e, Received)]
    assert received.kind == "file" and received.artifact.name == "png"
    return received


def test_a_cutout_is_a_job_that_brings_its_certainty(tmp_path: Path, run_server: Start) -> None:
    with Client(run_server(tmp_path).path) as client:
        job = client.session.cutout(script(steps=2), filename="tasse.jpg")
        done = client.until(m.Done, job=job)
        assert done.timings == {"cutting": 1.0, "total": 1.0}
        received = file_of(client, job)
        assert received.arrays["data"].tobytes() == b"cut out"
        assert received.artifact.certainty == 0.25
        client.session.status()
        (entry,) = client.until(m.Queue).jobs
        assert (entry.filename, entry.model) == ("tasse.jpg", "cutout")


def test_a_cutout_that_waits_survives_a_restart(tmp_path: Path, run_server: Start) -> None:
    first = run_server(tmp_path)
    with Client(first.path) as client:
        client.session.submit(script(steps=2000, step_s=0.02))
        job = client.session.cutout(script(steps=1))
        client.until(m.Accepted, job=job)
        first.stop()
    with Client(run_server(tmp_path).path) as client:
        client.session.status()
        client.session.cancel(client.until(m.Queue).jobs[0].job)
        client.session.fetch(job)
        client.until(m.Done, job=job)
        assert file_of(client, job).artifact.certainty == 0.25


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_client_is_not_told_of_cutouts(
    tmp_path: Path, run_server: Start, version: int
) -> None:
    running = run_server(tmp_path)
    with Client(running.path) as newer:
        cut = newer.session.cutout(script(steps=1))
        newer.until(m.Done)
        with Client(running.path, versions=(version,)) as older:
            job = older.session.submit(script())
            older.until(m.Done)
            older.session.status()
            assert [e.job for e in older.until(m.Queue).jobs] == [job]
            assert not [e for e in older.events if isinstance(e, Violation)]
        newer.session.status()
        assert [e.job for e in newer.until(m.Queue).jobs] == [cut, job]


def test_the_worker_cuts_out_and_explains_what_it_cannot() -> None:
    from backend.model_runner import ModelRunner

    runner, link = ModelRunner("cpu"), RecordedWatch()
    y, x = np.mgrid[0:120, 0:160]
    ball = (x - 80) ** 2 + (y - 60) ** 2 < 40**2
    picture = io.BytesIO()
    Image.fromarray(np.where(ball[..., None], (180, 60, 30), 255).astype(np.uint8)).save(
        picture, "PNG"
    )
    asked = {"kind": "cutout", "filename": "ball.png"}
    timings = runner.run(asked, picture.getvalue(), link)  # type: ignore[arg-type]
    ((kind, data, fields),) = link.sent
    assert kind == "file" and fields["name"] == "png" and fields["certainty"] > 0.9
    alpha = np.asarray(Image.open(io.BytesIO(data)))[..., 3]
    assert np.count_nonzero(alpha > 127) == pytest.approx(ball.sum(), rel=0.03)
    assert set(timings) == {"cutting", "total"} and set(link.phases) == {"cutting"}
    with pytest.raises(Exception) as caught:
        runner.run(asked, b"no picture", link)  # type: ignore[arg-type]
    known = runner.explain(caught.value)
    assert known is not None and "ball.png" in known[0] and known[2]
