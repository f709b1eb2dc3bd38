# SPDX-License-Identifier: Apache-2.0
"""Jobs in the worker: the settings they pass on, their failures, and the job after a failure."""

from __future__ import annotations

import io
import os
import shutil
from typing import Any

import pytest
import torch
from PIL import Image

from backend import link
from backend.errors import BackendError
from backend.model_runner import ModelRunner
from backend.protocol import encode
from backend.protocol.messages import Welcome
from backend.worker_runtime import in_words
from gsv3d import generation, models
from gsv3d.errors import ModelError
from tests.backend.conftest import RecordedWatch
from tests.gsv3d.fake_pipeline import FakePipeline, make_result

SETTINGS = {"steps": 1, "seed": 0, "faces": 60, "texture_size": 4096, "elevation": 10.0,
            "previews": 0, "model": "blockout", "files": ("glb",), "filename": "a.png"}  # fmt: skip


def draw_square() -> bytes:
    file = io.BytesIO()
    image = Image.new("RGBA", (32, 32))
    image.paste((200, 30, 30, 255), (8, 8, 24, 24))
    image.save(file, "PNG")
    return file.getvalue()


def test_wishes_reach_the_job(monkeypatch) -> None:
    asked: list[Any] = []

    def generate(_pipeline: Any, image: Any, settings: Any, *_: Any) -> Any:
        asked.append(settings)
        return make_result(image)

    monkeypatch.setattr(models, "load_pipeline", lambda *_: FakePipeline())
    monkeypatch.setattr(generation, "generate", generate)
    runner = ModelRunner("cpu")
    for wishes in ({}, {"refine": True, "mirror": "plane", "plane": 30.0}):
        runner.run(SETTINGS | wishes, draw_square(), RecordedWatch())  # type: ignore[arg-type]
    assert [(s.refine, s.mirror) for s in asked] == [(False, "off"), (True, 30.0)]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "Close other programs."),
        (RuntimeError("DefaultCPUAllocator: not enough memory"), "Close other programs."),
        (torch.OutOfMemoryError("CUDA out of memory"), "--device cpu"),
        (ZeroDivisionError("a fault"), "a fault of GSV3D"),
    ],
)
def test_a_job_that_needs_too_much_memory_is_told_in_words(monkeypatch, error, words) -> None:
    def generate(_pipeline: Any, image: Any, *_: Any) -> Any:
        calls.append(image)
        if len(calls) == 1:
            raise error
        return make_result(image)

    calls: list[Any] = []
    monkeypatch.setattr(models, "load_pipeline", lambda *_: FakePipeline())
    monkeypatch.setattr(generation, "generate", generate)
    runner, link = ModelRunner("cpu"), RecordedWatch()
    with pytest.raises(type(error)) as caught:
        runner.run(SETTINGS, draw_square(), link)  # type: ignore[arg-type]
    *words_told, fault = in_words(runner, caught.value, "a.png")
    told = " ".join(words_told)
    assert fault == ("fault" in words)
    assert words in told and ("memory" in told) == ("fault" not in words)
    runner.run(SETTINGS, draw_square(), link)  # type: ignore[arg-type]
    assert [kind for kind, _, _ in link.sent] == ["mesh", "file"]


def test_a_model_that_was_replaced_is_loaded_again(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("GSV3D_MODELS", str(tmp_path))
    folder = tmp_path / "mine"
    for name in models.COMPONENTS:
        (folder / name).mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / "LICENSE").write_text("My\tlicense\x07\n", "utf-8")
    (folder / "description.txt").write_text("Für Stühle", "cp1252")  # of an editor on Windows
    loaded: list[str] = []
    monkeypatch.setattr(
        models, "load_pipeline", lambda name, *_: loaded.append(name) or FakePipeline()
    )
    monkeypatch.setattr(generation, "generate", lambda _, image, *__: make_result(image))
    runner, link = ModelRunner("cpu"), RecordedWatch()
    entries = {entry.name: entry for entry in Welcome(5, "", runner.describe()[1]).models}
    mine, shipped = entries["mine"], entries["blockout"]
    assert (mine.decoder, mine.license, mine.change) == (False, "My license", "remove")
    assert (shipped.decoder, shipped.license, shipped.change) == (True, "apache-2.0", "")
    assert entries["sv3d-p"].change == "add" and not entries["sv3d-p"].installed
    for _ in range(2):
        runner.run(SETTINGS | {"model": "mine"}, draw_square(), link)  # type: ignore[arg-type]
    assert loaded == ["mine"]
    os.utime(folder / "model_index.json", ns=(1, 1))
    runner.run(SETTINGS | {"model": "mine"}, draw_square(), link)  # type: ignore[arg-type]
    assert loaded == ["mine", "mine"]
    shutil.rmtree(folder)
    with pytest.raises(ModelError, match="There is no model 'mine'"):
        runner.run(SETTINGS | {"model": "mine"}, draw_square(), link)  # type: ignore[arg-type]


def test_many_models_with_long_descriptions_can_be_told_of(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("GSV3D_MODELS", str(tmp_path))
    for number in range(70):
        folder = tmp_path / f"{number}{'m' * 60}"
        for name in models.COMPONENTS:
            (folder / name).mkdir(parents=True)
        (folder / "model_index.json").write_text("{}")
        for name in ("LICENSE", "description.txt"):
            (folder / name).write_text("椅" * 2000, "utf-8")
    device, told = ModelRunner("cpu").describe()
    ready = {"device": device, "memory": 1, "devices": ["cpu"], "models": told}
    assert len(link.pack("ready", token="a" * 32, **ready)) < link.MAX_BYTES
    encode(Welcome(6, "", told), 1)


@pytest.mark.parametrize(
    ("told", "made"),
    [
        ({}, (None, None, None, None)),
        ({"orbit": "model", "frames": None}, (None, None, None, None)),
        ({"orbit": "sine", "frames": 30}, ("sine", 30, None, None)),
        (
            {"azimuths": [90.0, 0.0], "elevations": [5.0, 10.0]},
            (None, None, (90.0, 0.0), (5.0, 10.0)),
        ),
    ],
)
def test_the_views_that_were_asked_for_are_made(monkeypatch, told, made) -> None:
    """A job in the journal of an older backend names no views."""
    seen = []

    def generate(_pipeline: Any, image: Any, settings: Any, *_: Any) -> Any:
        seen.append((settings.orbit, settings.frames, settings.azimuths, settings.elevations))
        return make_result(image)

    monkeypatch.setattr(models, "load_pipeline", lambda *_: FakePipeline())
    monkeypatch.setattr(generation, "generate", generate)
    ModelRunner("cpu").run(SETTINGS | told, draw_square(), RecordedWatch())  # type: ignore[arg-type]
    assert seen == [made]


def test_views_that_cannot_be_are_refused_in_a_sentence() -> None:
    told = {"azimuths": [120.0, 240.0, 0.0], "orbit": "sine"}
    with pytest.raises(BackendError, match="Give azimuths and elevations, or an orbit"):
        ModelRunner("cpu").run(SETTINGS | told, draw_square(), RecordedWatch())  # type: ignore[arg-type]
    told = {"azimuths": [240.0, 120.0, 0.0]}
    with pytest.raises(BackendError, match="Azimuths must grow from 0"):
        ModelRunner("cpu").run(SETTINGS | told, draw_square(), RecordedWatch())  # type: ignore[arg-type]
