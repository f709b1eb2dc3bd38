# SPDX-License-Identifier: GPL-3.0-or-later
"""Words to a picture to an object, by the panel's buttons, in Blender."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from backend.protocol import messages as m
from blender_addon.jobs import Job, JobState
from blender_addon.requests import Target, Words
from tests import tiny_text_model
from tests.blender_addon.test_panels import draw_panel
from tests.canned_results import draw_words

pytestmark = pytest.mark.bpy


@pytest.fixture(autouse=True)
def no_text_model(monkeypatch) -> None:
    monkeypatch.delenv("GSV3D_TEXT_MODEL", raising=False)


@pytest.fixture
def connect(addon, connect):
    """Do as `connect` does elsewhere, and wait until the backend has answered."""

    def start(*behavior: str, **options: float):
        fake = connect(*behavior, **options)
        addon.drain_until(lambda: addon.session.get().backend.ready)
        return fake

    return start


def press_imagine(addon, prompt: str = "a wooden barrel"):
    """Press the button; the job it made."""
    settings = addon.bpy.context.scene.gsv3d
    settings.source, settings.prompt = "WORDS", prompt
    assert addon.bpy.ops.gsv3d.imagine() == {"FINISHED"}
    return list(addon.session.get().book)[-1]


def test_words_then_look_then_generate(addon, connect) -> None:
    settings = addon.bpy.context.scene.gsv3d
    fake = connect()
    settings.source = "WORDS"
    assert not addon.bpy.ops.gsv3d.generate.poll()  # nothing to look at yet
    job = press_imagine(addon)
    addon.drain_until(lambda: job.state is JobState.RUNNING)
    assert "Drawing" in job.describe()
    assert addon.bpy.context.window_manager.gsv3d.jobs[0].name == "a wooden barrel"
    addon.drain_until(lambda: job.state is JobState.DONE)
    image = settings.imagined
    assert image.name == "a wooden barrel.png" and tuple(image.size) == (48, 48)
    shown = np.array(image.pixels).reshape(48, 48, 4)[::-1]
    np.testing.assert_allclose(shown[24, 24] * 255, (65, 50, 90, 255), atol=0.6)
    assert shown[0, 0, 3] == 0
    assert fake.wait_for(m.Ack).job == job.id
    assert addon.bpy.ops.gsv3d.generate() == {"FINISHED"}
    (made,) = addon.session.get().book.active()
    addon.drain_until(lambda: made.state is JobState.DONE)
    assert "a wooden barrel" in addon.bpy.data.objects
    sent = fake.wait_for(m.Submit)
    assert bytes(sent.image) == draw_words("a wooden barrel", 0)  # as it came
    assert sent.filename == "a wooden barrel.png"


def test_every_press_brings_another_and_the_seed_brings_one_back(addon, connect) -> None:
    settings = addon.bpy.context.scene.gsv3d
    settings.prompt_seed = 7
    fake = connect()
    jobs = [press_imagine(addon), press_imagine(addon)]  # the second before the first has come
    addon.drain_until(lambda: all(job.state is JobState.DONE for job in jobs))
    jobs.append(press_imagine(addon))
    addon.drain_until(lambda: jobs[-1].state is JobState.DONE)
    seeds = [r.seed for r in fake.received if isinstance(r, m.Imagine)]
    assert seeds == [7, 8, 9] and settings.prompt_seed == 9
    settings.prompt_seed = 7
    again = press_imagine(addon)
    addon.drain_until(lambda: again.state is JobState.DONE)
    assert bytes(settings.imagined.packed_file.data) == draw_words("a wooden barrel", 7)
    assert len([i for i in addon.bpy.data.images if "barrel" in i.name]) == 4
    other = press_imagine(addon, "a red chair")  # other words: the seed stays
    addon.drain_until(lambda: other.state is JobState.DONE)
    assert settings.prompt_seed == 7 and settings.imagined.name == "a red chair.png"


def test_a_picture_stays_out_of_a_linked_scene(addon, finish, tmp_path: Path) -> None:
    from blender_addon.importers.picture import import_picture

    bpy, library = addon.bpy, tmp_path / "library.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(library))
    bpy.ops.wm.read_homefile(use_empty=True)
    bpy.context.scene.name = "Mine"
    with bpy.data.libraries.load(str(library), link=True) as (_, wanted):
        wanted.scenes = ["Scene"]
    finish(
        import_picture(draw_words("a cup", 0), Job(Words("a cup"), Target("cup", scene="Scene")))
    )
    assert bpy.data.scenes["Mine"].gsv3d.imagined is not None
    assert bpy.data.scenes["Scene"].gsv3d.imagined is None


def test_cancel_leaves_no_picture(addon, connect) -> None:
    connect("slow")
    job = press_imagine(addon)
    addon.drain_until(lambda: job.state is JobState.RUNNING and job.step > 0)
    addon.bpy.ops.gsv3d.cancel(job_id=job.id)
    addon.drain_until(lambda: job.state is JobState.CANCELLED)
    assert addon.bpy.context.scene.gsv3d.imagined is None
    assert not [i for i in addon.bpy.data.images if "barrel" in i.name]


def test_a_picture_is_one_undo_step(addon, connect) -> None:
    addon.bpy.ops.ed.undo_push(message="before")
    connect()
    job = press_imagine(addon)
    addon.drain_until(lambda: job.state is JobState.DONE)
    addon.bpy.ops.ed.undo()
    assert addon.bpy.context.scene.gsv3d.imagined is None
    addon.bpy.ops.ed.redo()
    image = addon.bpy.context.scene.gsv3d.imagined
    assert bytes(image.packed_file.data) == draw_words("a wooden barrel", 0)


def test_in_another_file_the_picture_waits_to_be_imported(addon, connect) -> None:
    connect("slow", step_s=0.05)
    job = press_imagine(addon)
    addon.drain_until(lambda: job.state is JobState.RUNNING)
    addon.bpy.ops.wm.read_homefile(use_empty=True)
    addon.drain_until(lambda: job.state is JobState.ARRIVED)
    assert addon.bpy.context.scene.gsv3d.imagined is None
    assert addon.bpy.ops.gsv3d.import_result(job_id=job.id) == {"FINISHED"}
    addon.drain_until(lambda: job.state is JobState.DONE)
    assert addon.bpy.context.scene.gsv3d.imagined.name == "a wooden barrel.png"


def test_without_a_text_model_a_sentence_says_how_to_add_one(addon, connect) -> None:
    from blender_addon.operators.imagine import text_problem

    settings = addon.bpy.context.scene.gsv3d
    settings.source, settings.prompt = "WORDS", "a cup"
    with pytest.raises(RuntimeError, match="no text-to-image model.*Preferences"):
        addon.bpy.ops.gsv3d.imagine()
    connect("no_text_model")
    with pytest.raises(RuntimeError, match="no text-to-image model.*Preferences"):
        addon.bpy.ops.gsv3d.imagine()
    assert "Preferences" in text_problem().hint  # what the panel shows
    assert not len(addon.session.get().book)


def test_the_variable_names_the_text_model(addon, connect, monkeypatch) -> None:
    monkeypatch.setenv("GSV3D_TEXT_MODEL", "someone/words")
    fake = connect("no_text_model")
    job = press_imagine(addon)
    addon.drain_until(lambda: job.state is JobState.DONE)
    assert fake.wait_for(m.Imagine).text_model == "someone/words"


def test_the_settings_of_a_picture_are_its_words_and_seed(addon) -> None:
    job = addon.session.get().jobs.submit(Words("a cup", seed=7), Target("a cup"))
    settings = addon.bpy.context.scene.gsv3d
    settings.prompt, settings.prompt_seed = "a pot", 3
    assert addon.bpy.ops.gsv3d.copy_settings(job_id=job.id) == {"FINISHED"}
    assert (settings.prompt, settings.prompt_seed) == ("a cup", 7)


def test_drawing_reads_no_disk(addon, monkeypatch) -> None:
    """The folder of the text model may be on a server that does not answer."""
    from blender_addon import preferences

    stored = SimpleNamespace(text_model="/server/models/turbo", connection_file="", python="")
    monkeypatch.setattr(preferences, "_stored", lambda: stored)
    monkeypatch.setattr(preferences, "Path", None)
    addon.bpy.context.scene.gsv3d.source = "WORDS"
    assert "gsv3d.imagine" in draw_panel(addon, "GSV3D_PT_generate")
    assert "gsv3d.imagine" in draw_panel(addon, "GSV3D_PT_image")


def test_an_older_backend_is_told_at_once_and_later(addon, connect) -> None:
    session = addon.session.get()
    early = session.jobs.submit(Words("a cup", "someone/words"), Target("a cup"))
    fake = connect("version_1")
    addon.drain_until(lambda: early.state is JobState.FAILED)
    assert "older than the add-on" in early.what and "Update" in early.hint
    settings = addon.bpy.context.scene.gsv3d
    settings.source, settings.prompt = "WORDS", "a cup"
    with pytest.raises(RuntimeError, match="older than the add-on"):
        addon.bpy.ops.gsv3d.imagine()
    assert not [r for r in fake.received if isinstance(r, m.Imagine)]


def test_the_button_says_what_is_missing(addon) -> None:
    assert not addon.bpy.ops.gsv3d.imagine.poll()
    addon.bpy.context.scene.gsv3d.prompt = "a cup"
    assert addon.bpy.ops.gsv3d.imagine.poll()


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("a wooden barrel", "a wooden barrel"),
        (" ein Faß,\tgroß/rund ", "ein Faß groß rund"),
        ("../../etc", "etc"),
        ("???", "Words"),
        ("x" * 300, "x" * 48),
    ],
)
def test_names_of_words(prompt: str, name: str) -> None:
    from blender_addon.operators.imagine import name_of_words

    assert name_of_words(prompt) == name


@pytest.mark.slow
def test_the_real_backend_draws_for_blender(addon, tmp_path: Path) -> None:
    """The registered add-on, the backend it starts, the worker, a tiny Stable Diffusion."""
    from gsv3d.cli import main

    text_model = tiny_text_model.save(tmp_path / "Modell für Wörter")
    session = addon.session.get()
    session.start_backend(sys.executable, tmp_path / "c.json", tmp_path / "data")
    words = Words("a wooden barrel", str(text_model), steps=2, seed=3)
    job = session.jobs.submit(words, Target("barrel"))
    try:
        addon.drain_until(lambda: not job.state.active, 200)
        addon.drain_until(lambda: job.state is JobState.DONE)
        image = addon.bpy.context.scene.gsv3d.imagined
        assert tuple(image.size) == (64, 64)
        pixels = np.array(image.pixels).reshape(64, 64, 4)
        assert pixels[..., 3].min() == 0 and pixels[..., 3].max() > 0.9
        reference = tmp_path / "cli" / "a_wooden_barrel_reference.png"
        assert main(
            ["generate", "--prompt", "a wooden barrel", "--text-model", str(text_model),
             "--text-steps", "2", "--seed", "3", "--device", "cpu", "--reference-only",
             "--output", str(reference.parent)]
        ) == 0  # fmt: skip
        assert reference.read_bytes() == bytes(image.packed_file.data)
    finally:
        session.close()
