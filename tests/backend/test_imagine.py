# SPDX-License-Identifier: Apache-2.0
"""Pictures of words: the job, clients and backends of version 1, and the real worker."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend.protocol import ProtocolError, Received, Violation
from backend.protocol import messages as m
from tests import tiny_text_model
from tests.backend.client import Client
from tests.backend.conftest import RecordedWatch, Start, script

ROOT = Path(__file__).parents[2]


def words(**values: Any) -> str:
    """Return a prompt for the scripted worker."""
    return json.dumps(values)


def file_of(client: Client, job: str) -> bytes:
    (received,) = [e for e in client.of_job(job) if isinstance(e, Received)]
    assert received.kind == "file" and received.artifact.name == "png"
    return received.arrays["data"].tobytes()


def test_words_are_a_job_like_a_picture(tmp_path: Path, run_server: Start) -> None:
    with Client(run_server(tmp_path, text_model="someone/words").path) as client:
        job = client.session.imagine(words(steps=4), text_model="Modelle/ü", seed=5)
        done = client.until(m.Done, job=job)
        assert done.timings == {"imagining": 1.0, "total": 1.0}
        assert file_of(client, job) == "drawn with Modelle/ü".encode()
        assert client.session.welcome.text_model == "someone/words"
        reports = [e for e in client.of_job(job) if isinstance(e, m.Progress)]
        assert [(e.phase, e.step, e.of) for e in reports][-1] == ("imagining", 4, 4)
        second = client.session.imagine(words(steps=2000, step_s=0.02))
        client.until(m.Progress, job=second)
        client.session.cancel(second)
        client.until(m.Cancelled, timeout=10, job=second)
        client.session.status()
        queue = client.until(m.Queue)
        assert [e.filename for e in queue.jobs] == [words(steps=4), words(steps=2000, step_s=0.02)]
        assert queue.jobs[0].model == "words: ü"


def test_words_that_wait_survive_a_restart(tmp_path: Path, run_server: Start) -> None:
    first = run_server(tmp_path)
    with Client(first.path) as client:
        client.session.submit(script(steps=2000, step_s=0.02))
        job = client.session.imagine(words(steps=1))
        client.until(m.Accepted, job=job)
        first.stop()
    again = run_server(tmp_path)
    with Client(again.path) as client:
        client.session.status()
        running = client.until(m.Queue).jobs[0].job
        client.session.cancel(running)
        client.session.fetch(job)
        client.until(m.Done, job=job)
        assert file_of(client, job) == b"drawn with "


def test_an_older_client_works_and_is_not_told_of_words(tmp_path: Path, run_server: Start) -> None:
    running = run_server(tmp_path)
    with Client(running.path) as newer:
        drawn = newer.session.imagine(words())
        newer.until(m.Done)
        with Client(running.path, versions=(1,)) as older:
            job = older.session.submit(script())
            older.until(m.Done)
            # News of the worker's start comes in the version that was agreed on.
            assert {e.version for e in older.events if isinstance(e, m.Welcome)} == {1}
            older.session.status()
            assert [e.job for e in older.until(m.Queue).jobs] == [job]
            assert not [e for e in older.events if isinstance(e, Violation)]
        newer.session.status()
        assert [e.job for e in newer.until(m.Queue).jobs] == [drawn, job]


def test_only_words_bring_a_picture() -> None:
    with pytest.raises(ProtocolError, match="one of glb, ply"):
        m.Submit("0" * 32, b"x", files=("png",))


def test_one_model_at_a_time_is_in_memory(tmp_path: Path, monkeypatch) -> None:
    """The worker frees the text-to-image model before it loads the other, and the reverse."""
    from backend.model_runner import ModelRunner
    from gsv3d import generation, models, text_to_image
    from tests.gsv3d.fake_pipeline import FakePipeline, quick_result

    alive: list[weakref.ref[Any]] = []

    def counted(load: Callable[..., Any]) -> Callable[..., Any]:
        def loader(*arguments: Any) -> Any:
            assert not [ref for ref in alive if ref() is not None]
            made = load(*arguments)
            alive.append(weakref.ref(made))
            return made

        return loader

    load = text_to_image.load_text_pipeline
    monkeypatch.setattr(text_to_image, "load_text_pipeline", counted(load))
    monkeypatch.setattr(models, "load_pipeline", counted(lambda *_: FakePipeline()))
    monkeypatch.setattr(generation, "generate", lambda _pipeline, image, *_: quick_result(image))
    folder = tiny_text_model.save(tmp_path / "words")
    runner, link = ModelRunner("cpu", str(folder)), RecordedWatch()
    asked = {"kind": "imagine", "prompt": "a cup", "text_model": "", "seed": 1, "steps": 1,
             "guidance": None}  # fmt: skip
    runner.run(asked, b"", link)  # type: ignore[arg-type]
    runner.run({**asked, "seed": 2}, b"", link)  # type: ignore[arg-type]
    assert len(alive) == 1 and len(set(link.files())) == 2
    picture = {"steps": 1, "seed": 0, "faces": 60, "texture_size": 32, "elevation": 10.0,
               "previews": 0, "model": "blockout", "files": ()}  # fmt: skip
    runner.run(picture, link.files()[0], link)  # type: ignore[arg-type]
    runner.run(asked, b"", link)  # type: ignore[arg-type]
    assert len(alive) == 3 and link.files()[0] == link.files()[2]
    assert link.phases.count("loading") == 6


@pytest.mark.slow
def test_words_through_the_real_backend_and_worker(tmp_path: Path) -> None:
    text_model = tiny_text_model.save(tmp_path / "Modell für Wörter")
    command = [sys.executable, "-m", "backend", "serve", "--data-dir", str(tmp_path / "data"),
               "--device", "cpu", "--text-model", str(text_model)]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        path = tmp_path / "data" / "connection.json"
        deadline = time.monotonic() + 60
        while not path.exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        with Client(path) as client:
            missing = client.session.imagine("a cup", text_model=str(tmp_path / "nichts"))
            failed = client.until(lambda e: isinstance(e, m.Failed), 200)
            assert failed.job == missing and "is not on this computer" in failed.what
            assert "--text-model" in failed.hint
            jobs = [client.session.imagine("a wooden barrel", seed=s, steps=3) for s in (4, 5, 4)]
            client.until(lambda e: isinstance(e, m.Done) and e.job == jobs[-1], 200)
            first, other, again = (file_of(client, job) for job in jobs)
            assert first == again != other
            image = Image.open(io.BytesIO(first))
            assert image.mode == "RGBA" and image.text["prompt"] == "a wooden barrel"
            assert (np.asarray(image)[0, :, 3] == 0).all()
            steps = [e.step for e in client.of_job(jobs[0])
                     if isinstance(e, m.Progress) and e.phase == "imagining"]  # fmt: skip
            # Progress that comes too fast is left out in part, even that of the last step.
            assert steps == sorted(steps) and 2 <= steps[-1] <= 3
            long = client.session.imagine("a wooden barrel", steps=200)
            client.until(lambda e: isinstance(e, m.Progress) and e.job == long and e.step > 1, 60)
            client.session.cancel(long)
            client.until(m.Cancelled, timeout=19, job=long)
            client.session.shutdown()
            client.until(m.Bye)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
