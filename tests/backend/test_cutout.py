# SPDX-License-Identifier: Apache-2.0
"""Pictures cut out: the job, older clients, and the real worker."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.protocol import ClientSession, Violation
from backend.protocol import messages as m
from tests.backend.client import Client
from tests.backend.conftest import RecordedWatch, Start, make_script


def test_a_cutout_is_a_job_that_brings_its_certainty(tmp_path: Path, run_server: Start) -> None:
    with Client(run_server(tmp_path).path) as client:
        job = client.session.cutout(make_script(steps=2), filename="tasse.jpg")
        done = client.wait_for(m.Done, job=job)
        assert done.timings == {"cutting": 1.0, "total": 1.0}
        (result,) = client.list_results(job)
        assert (result.kind, result.artifact.name) == ("file", "png")
        assert result.arrays["data"].tobytes() == b"cut out" and result.artifact.certainty == 0.25
        client.session.status()
        (entry,) = client.wait_for(m.Queue).jobs
        assert (entry.filename, entry.model) == ("tasse.jpg", "cutout")


def submit_cutout(session: ClientSession) -> str:
    return session.cutout(make_script(steps=1))


def submit_words(session: ClientSession) -> str:
    return session.imagine(make_script(steps=1).decode())


@pytest.mark.parametrize(
    ("begin", "data"), [(submit_cutout, b"cut out"), (submit_words, b"drawn with ")]
)
def test_a_job_of_another_kind_that_waits_survives_a_restart(
    tmp_path: Path, run_server: Start, begin: Callable[[ClientSession], str], data: bytes
) -> None:
    first = run_server(tmp_path)
    with Client(first.path) as client:
        client.session.submit(make_script(steps=2000, step_s=0.02))
        job = begin(client.session)
        client.wait_for(m.Accepted, job=job)
        first.stop()
    with Client(run_server(tmp_path).path) as client:
        client.session.status()
        client.session.cancel(client.wait_for(m.Queue).jobs[0].job)
        client.session.fetch(job)
        client.wait_for(m.Done, job=job)
        (result,) = client.list_results(job, "file")
        assert result.arrays["data"].tobytes() == data


@pytest.mark.parametrize(
    ("begin", "version"), [(submit_cutout, 1), (submit_cutout, 2), (submit_words, 1)]
)
def test_an_older_client_works_and_is_not_told_of_jobs_it_does_not_know(
    tmp_path: Path, run_server: Start, begin: Callable[[ClientSession], str], version: int
) -> None:
    running = run_server(tmp_path)
    with Client(running.path) as newer:
        unknown = begin(newer.session)
        newer.wait_for(m.Done)
        with Client(running.path, versions=(version,)) as older:
            job = older.session.submit(make_script())
            older.wait_for(m.Done)
            # News of the worker's start comes in the version that was agreed on.
            assert {e.version for e in older.events if isinstance(e, m.Welcome)} == {version}
            older.session.status()
            assert [e.job for e in older.wait_for(m.Queue).jobs] == [job]
            assert not [e for e in older.events if isinstance(e, Violation)]
        newer.session.status()
        assert [e.job for e in newer.wait_for(m.Queue).jobs] == [unknown, job]


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
