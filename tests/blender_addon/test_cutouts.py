# SPDX-License-Identifier: GPL-3.0-or-later
"""Cut-outs are asked for, shown and replaced, and Generate sends them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from backend.protocol import messages as m
from blender_addon import events
from blender_addon.cutouts import CutOut, CutOuts
from blender_addon.importers.prepare import prepare_sheet
from blender_addon.jobs import JobState
from blender_addon.problems import Problem
from blender_addon.requests import Cutting
from tests.blender_addon.reference_pictures import save_picture
from tests.canned_results import draw_words


def make_cutout() -> CutOut:
    return CutOut(Cutting(b"png", "mug.jpg"))


@pytest.mark.parametrize(
    ("certainty", "words", "unsure"),
    [
        (0.5, "Unsure", True),
        (0.89, "Unsure", True),
        (0.9, "This becomes", False),
        (None, "transparency", False),
    ],
)
def test_a_cut_out_says_how_sure_it_is(certainty, words: str, unsure: bool) -> None:
    cut = make_cutout()
    assert "Waiting" in cut.describe()
    cut.take(events.JobAccepted(cut.id, 2))
    assert cut.describe() == "2 jobs are before it"
    cut.take(events.JobAccepted(cut.id, 0))
    assert cut.describe() == "Cutting the object out"
    cut.take(events.FileArrived(cut.id, "png", b"picture", certainty))
    assert words in cut.describe() and cut.unsure == unsure and not cut.ended
    cut.take(events.JobDone(cut.id))
    assert cut.ended and cut.png == b"picture"


def test_a_cut_out_that_failed() -> None:
    cut = make_cutout()
    cut.take(events.JobFailed(cut.id, Problem("There is nothing.", "Take another.")))
    assert cut.ended and str(cut.problem) == "There is nothing. Take another."


def test_the_newest_cut_outs_are_kept() -> None:
    cuts = CutOuts()
    made = [make_cutout() for _ in range(20)]
    gone = [old for i, cut in enumerate(made) for old in cuts.add(f"{i}", cut)]
    assert gone == made[:4] and list(cuts) == made[4:]
    again = make_cutout()
    assert cuts.add("7", again) == [made[7]] and cuts.get("7") is again
    assert cuts.of_job(made[9].id) is made[9] and cuts.of_job("x") is None
    assert cuts.remove("9") is made[9] and cuts.get("9") is None


@pytest.mark.bpy
def test_the_cut_out_is_shown_and_nothing_is_made(addon, tmp_path: Path, backend) -> None:
    from blender_addon.operators import cutout as operator

    bpy, session = addon.bpy, addon.session.get()
    settings = bpy.context.scene.gsv3d
    settings.source = "FILE"
    assert not bpy.ops.gsv3d.cutout.poll()
    settings.filepath = str(save_picture(tmp_path / "mug.png", "red"))
    images = len(bpy.data.images)
    assert bpy.ops.gsv3d.cutout() == {"FINISHED"}
    cut = operator.shown(bpy.context, "SETTINGS")
    addon.drain_until(lambda: cut.ended)
    assert (cut.png, cut.certainty) == (draw_words("cutout", 0), 0.5)
    asked = backend.wait_for(m.Cutout)
    assert (bytes(asked.image), asked.filename) == ((tmp_path / "mug.png").read_bytes(), "mug.png")
    assert backend.wait_for(m.Forget).job == cut.id
    assert not len(session.book) and len(bpy.data.images) == images and not bpy.data.objects

    settings.filepath = str(save_picture(tmp_path / "cup.png", "blue"))
    assert operator.shown(bpy.context, "SETTINGS") is None  # another picture
    settings.filepath = str(tmp_path / "mug.png")
    assert bpy.ops.gsv3d.forget_cutout() == {"FINISHED"}
    assert operator.shown(bpy.context, "SETTINGS") is None


@pytest.mark.bpy
def test_another_cut_out_is_what_generate_sends(addon, tmp_path: Path, backend) -> None:
    from blender_addon.operators import cutout as operator

    bpy = addon.bpy
    settings = bpy.context.scene.gsv3d
    settings.source = "FILE"
    settings.filepath = str(save_picture(tmp_path / "mug.png", "red"))
    better = save_picture(tmp_path / "by hand.png", "green")
    assert bpy.ops.gsv3d.another_cutout(filepath=str(better)) == {"FINISHED"}
    cut = operator.shown(bpy.context, "SETTINGS")
    addon.drain_until(lambda: cut.ended)
    assert bytes(backend.wait_for(m.Cutout).image) == better.read_bytes()
    bpy.ops.gsv3d.generate()
    (job,) = addon.session.get().book
    addon.drain_until(lambda: job.state is JobState.DONE)
    submitted = backend.wait_for(m.Submit)
    assert bytes(submitted.image) == better.read_bytes()
    assert (submitted.filename, job.name) == ("mug.png", "mug")
    with pytest.raises(RuntimeError, match="no file"):
        bpy.ops.gsv3d.another_cutout(filepath=str(tmp_path / "none.png"))
    assert operator.shown(bpy.context, "SETTINGS") is cut


@pytest.mark.bpy
def test_a_backend_too_old_for_cut_outs_says_so(addon, tmp_path: Path, serve) -> None:
    from blender_addon.operators import cutout as operator

    settings = addon.bpy.context.scene.gsv3d
    settings.source, settings.filepath = "FILE", str(save_picture(tmp_path / "mug.png", "red"))
    serve("version_1")
    addon.bpy.ops.gsv3d.cutout()
    cut = operator.shown(addon.bpy.context, "SETTINGS")
    addon.drain_until(lambda: cut.ended)
    assert "older than the add-on" in str(cut.problem)


@pytest.mark.bpy
def test_a_cut_out_of_another_session_is_not_on_the_list(addon, tmp_path, backend) -> None:
    from blender_addon.client import Client

    earlier = Client(backend.connection_path)
    earlier.start()
    try:
        earlier.submit("c" * 32, Cutting(b"x", "mug.png"))
        while not isinstance(earlier.events.get(timeout=60), events.JobDone):
            pass
    finally:
        earlier.stop()
    session = addon.session.get()
    session.start_backend("", backend.connection_path, tmp_path)
    told = []
    handle = session.handle
    session.handle = lambda event: (told.append(event), handle(event))
    addon.drain_until(lambda: any(isinstance(e, events.JobsListed) and e.jobs for e in told))
    assert not len(session.book)
    left = events.ListedJob("d" * 32, "done", "cup.png", kind="cutout", owner="gone")
    session.handle(events.JobsListed((left,)))  # of a Blender that ended without a word
    assert not len(session.book) and backend.wait_for(m.Forget).job == left.job


@pytest.mark.bpy
def test_another_cut_out_is_for_the_picture_it_was_chosen_for(
    addon, tmp_path: Path, backend
) -> None:
    """Select another picture while the file browser is open, which is a window of its own."""
    from blender_addon.operators import cutout, sources

    mug, jug, cut = (save_picture(tmp_path / f"{name}.png") for name in ("mug", "jug", "cut"))
    settings = addon.bpy.context.scene.gsv3d
    settings.source, settings.filepath = "FILE", str(mug)
    operator = SimpleNamespace(source="SETTINGS", filepath=str(cut))
    operator.chosen = lambda context: sources.chosen(context, operator.source)
    window_manager = SimpleNamespace(fileselect_add=lambda _: None)
    context = SimpleNamespace(
        scene=addon.bpy.context.scene, space_data=None, window_manager=window_manager
    )
    another = cutout.GSV3D_OT_another_cutout
    assert another.invoke(operator, context, None) == {"RUNNING_MODAL"}
    settings.filepath = str(jug)
    assert another.execute(operator, context) == {"FINISHED"}
    cutouts = addon.session.get().jobs.cutouts
    assert cutouts.get(sources.key_of(str(mug))).chosen
    assert cutouts.get(sources.key_of(str(jug))) is None


@pytest.mark.bpy
def test_a_cut_out_is_an_icon_and_no_image_of_the_file(addon, monkeypatch) -> None:
    from blender_addon import previews

    bpy = addon.bpy
    with_window = SimpleNamespace(app=SimpleNamespace(background=False), utils=bpy.utils)
    monkeypatch.setattr(previews, "bpy", with_window)
    previews.show_pictures({"a": draw_words("cutout", 0)})
    icon = previews._collection["a"]
    assert np.ptp(np.array(icon.image_pixels_float)) > 0
    assert not bpy.data.images
    previews.show({"b": prepare_sheet(np.full((4, 9, 9, 3), (255, 0, 102), np.uint8))})
    np.testing.assert_allclose(
        np.array(previews._collection["b"].icon_pixels_float).reshape(-1, 4)[[0, -1]],
        [[1.0, 0.0, 0.4, 1.0]] * 2,
    )
    np.testing.assert_array_equal(
        previews._collection["b"].image_pixels, previews._collection["b"].icon_pixels
    )
    previews.show_pictures({})
    previews.show({})
    assert not previews._collection
    for name in "ab":  # Blender gives a name's former picture if it still has it
        assert tuple(previews._collection.new(name).image_size) == (0, 0)
    previews.close()
    assert previews._folder is None
