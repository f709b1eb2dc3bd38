# SPDX-License-Identifier: Apache-2.0
"""Pictures made of words: the job, and the real worker."""

from __future__ import annotations

import io
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend.protocol import ProtocolError
from backend.protocol import messages as m
from tests import tiny_text_model
from tests.backend.client import Client
from tests.backend.conftest import RecordedWatch, Start, serve


def read_picture(client: Client, job: str) -> bytes:
    (result,) = client.list_results(job)
    assert (result.kind, result.artifact.name) == ("file", "png")
    return result.arrays["data"].tobytes()


def test_words_are_a_job_like_a_picture(tmp_path: Path, run_server: Start) -> None:
    with Client(run_server(tmp_path, text_model="someone/words").path) as client:
        job = client.session.imagine(json.dumps({"steps": 4}), text_model="Modelle/ü", seed=5)
        done = client.wait_for(m.Done, job=job)
        assert done.timings == {"imagining": 1.0, "total": 1.0}
        assert read_picture(client, job) == "drawn with Modelle/ü".encode()
        assert client.session.welcome.text_model == "someone/words"
        reports = [e for e in client.list_events(job) if isinstance(e, m.Progress)]
        assert [(e.phase, e.step, e.of) for e in reports][-1] == ("imagining", 4, 4)
        long = json.dumps({"steps": 2000, "step_s": 0.02})
        second = client.session.imagine(long)
        client.wait_for(m.Progress, job=second)
        client.session.cancel(second)
        client.wait_for(m.Cancelled, job=second)
        client.session.status()
        queue = client.wait_for(m.Queue)
        assert [e.filename for e in queue.jobs] == [json.dumps({"steps": 4}), long]
        assert queue.jobs[0].model == "words: ü"


def test_only_words_bring_a_picture() -> None:
    with pytest.raises(ProtocolError, match="one of glb, ply"):
        m.Submit("0" * 32, b"x", files=("png",))


def test_one_model_at_a_time_is_in_memory(tmp_path: Path, monkeypatch) -> None:
    """The worker frees the text-to-image model before it loads the other, and the reverse."""
    from backend.model_runner import ModelRunner
    from gsv3d import generation, models, text_to_image
    from tests.gsv3d.fake_pipeline import FakePipeline, make_result

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
    monkeypatch.setattr(generation, "generate", lambda _pipeline, image, *_: make_result(image))
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
    options = ("--device", "cpu", "--text-model", str(text_model))
    with serve(tmp_path / "data", *options) as process:
        with Client(tmp_path / "data" / "connection.json") as client:
            missing = client.session.imagine("a cup", text_model=str(tmp_path / "nichts"))
            failed = client.wait_for(m.Failed, 200)
            assert failed.job == missing and "is not on this computer" in failed.what
            assert "--text-model" in failed.hint
            jobs = [client.session.imagine("a wooden barrel", seed=s, steps=3) for s in (4, 5, 4)]
            client.wait_for(m.Done, 200, jobs[-1])
            first, other, again = (read_picture(client, job) for job in jobs)
            assert first == again != other
            image = Image.open(io.BytesIO(first))
            assert image.mode == "RGBA" and image.text["prompt"] == "a wooden barrel"
            assert (np.asarray(image)[0, :, 3] == 0).all()
            steps = [e.step for e in client.list_events(jobs[0])
                     if isinstance(e, m.Progress) and e.phase == "imagining"]  # fmt: skip
            # Progress that comes too fast is left out in part, even that of the last step.
            assert steps == sorted(steps) and 2 <= steps[-1] <= 3
            long = client.session.imagine("a wooden barrel", steps=200)
            client.wait_for(lambda e: isinstance(e, m.Progress) and e.step > 1, job=long)
            client.session.cancel(long)
            client.wait_for(m.Cancelled, timeout=19, job=long)
            client.session.shutdown()
            client.wait_for(m.Bye)
        assert process.wait(60) == 0
