# SPDX-License-Identifier: GPL-3.0-or-later
"""Which bytes of a reference are sent, and the buttons that send them."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.protocol import messages as m
from blender_addon.jobs import JobState
from blender_addon.problems import Problem
from tests.canned_results import sphere_gaussians
from tests.fake_backend import FakeBackend

pytestmark = pytest.mark.bpy


def picture(path: Path, colour: tuple[int, ...] = (200, 100, 50, 128), size=(5, 3)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGBA", size, colour).save(path)
    return path


def decode(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_an_unchanged_file_is_sent_as_it_is(empty_blender, tmp_path: Path) -> None:
    from blender_addon import references

    path = picture(tmp_path / "Bilder für Blender" / "Fäßchen 1.png")
    image = empty_blender.data.images.load(str(path))
    reference = references.from_image(image)
    assert reference.data == path.read_bytes()
    assert (reference.filename, reference.name) == ("Fäßchen 1.png", "Fäßchen 1")
    assert references.from_file(path).data == path.read_bytes()


def test_a_packed_file_needs_no_disk(empty_blender, tmp_path: Path) -> None:
    from blender_addon import references

    path = picture(tmp_path / "a.png")
    original = path.read_bytes()
    image = empty_blender.data.images.load(str(path))
    image.pack()
    path.unlink()
    assert references.from_image(image).data == original


def test_a_file_that_is_gone_is_said(empty_blender, tmp_path: Path) -> None:
    from blender_addon import references

    path = picture(tmp_path / "a.png")
    image = empty_blender.data.images.load(str(path))
    path.unlink()
    with pytest.raises(Problem, match=r"a\.png is gone"):
        references.from_image(image)


def test_painted_pixels_are_what_is_sent(empty_blender, tmp_path: Path) -> None:
    from blender_addon import references

    image = empty_blender.data.images.load(str(picture(tmp_path / "a.png")))
    values = np.zeros((3, 5, 4), np.float32)
    values[0, 0] = (1.0, 0.5, 0.25, 1.0)  # Blender's first row is the lowest
    image.pixels.foreach_set(values.reshape(-1))
    assert image.is_dirty
    sent = decode(references.from_image(image).data)
    assert sent.shape == (3, 5, 4)
    assert tuple(sent[2, 0]) == (255, 128, 64, 255)
    assert sent[0].max() == 0


def test_a_float_image_goes_to_srgb_with_straight_alpha(empty_blender) -> None:
    from blender_addon import references

    image = empty_blender.data.images.new("glow", 1, 1, alpha=True, float_buffer=True)
    image.pixels.foreach_set(np.array([0.25, 0.5, 2.0, 0.5], np.float32))
    sent = decode(references.from_image(image).data)[0, 0]
    # premultiplied and linear: 0.25 / 0.5 = 0.5 linear is 188 in sRGB; 1.0 and above are 255
    assert tuple(sent) == (188, 255, 255, 128)


def test_an_image_without_pixels(empty_blender) -> None:
    from blender_addon import references

    image = empty_blender.data.images.new("none", 4, 4)
    image.source = "FILE"
    with pytest.raises(Problem):
        references.from_image(image)


def image_empty(bpy, path: Path, x: float = 0.0):
    empty = bpy.data.objects.new(path.stem, None)
    empty.empty_display_type = "IMAGE"
    empty.data = bpy.data.images.load(str(path))
    empty.location = (x, 2.0, 1.0)
    empty.rotation_euler = (math.pi / 2, 0.0, math.pi / 2)  # upright, facing +X
    bpy.context.scene.collection.objects.link(empty)
    bpy.context.view_layer.update()
    return empty


def test_generate_says_what_is_missing(addon) -> None:
    settings = addon.bpy.context.scene.gsv3d
    for source in ("SELECTED", "IMAGE", "FILE"):
        settings.source = source
        assert not addon.bpy.ops.gsv3d.generate.poll()
    assert not addon.bpy.ops.gsv3d.batch.poll()
    assert not addon.bpy.ops.gsv3d.cancel.poll()
    assert not addon.bpy.ops.gsv3d.backend_stop.poll()
    settings.filepath = "/no/picture.png"
    with pytest.raises(RuntimeError, match="no file"):
        addon.bpy.ops.gsv3d.generate()
    settings.batch_source, settings.folder = "FOLDER", "/no/folder"
    with pytest.raises(RuntimeError, match="no folder"):
        addon.bpy.ops.gsv3d.batch()
    assert not len(addon.session.get().book)


@pytest.mark.parametrize("size", ["PICTURE", "HEIGHT"])
def test_generate_from_the_selected_empty_stands_where_it_shows_the_object(
    addon, tmp_path: Path, monkeypatch, size: str
) -> None:
    from blender_addon import preferences
    from blender_addon.importers.placement import SHOWN
    from blender_addon.importers.prepare import prepare_gaussians

    bpy = addon.bpy
    bpy.context.scene.gsv3d.size = size
    path = picture(tmp_path / "barrel.png")
    image_empty(bpy, path, x=4.0).select_set(True)
    settings = bpy.context.scene.gsv3d
    settings.seed, settings.faces, settings.height, settings.steps = 5, 777, 3.0, 9
    with FakeBackend(tmp_path, "normal") as fake:
        monkeypatch.setattr(
            preferences,
            "backend_place",
            lambda: preferences.BackendPlace("", fake.connection_path, tmp_path),
        )
        assert bpy.ops.gsv3d.generate() == {"FINISHED"}
        (job,) = addon.session.get().book
        addon.drain_until(lambda: job.state is JobState.DONE)
        submit = fake.wait_for(m.Submit)
    assert (submit.seed, submit.faces, submit.steps, submit.filename) == (5, 777, 9, "barrel.png")
    assert bytes(submit.image) == path.read_bytes()
    made = next(o for o in bpy.data.objects if o.get("gsv3d_kind") == "mesh")
    # The picture is 1 x 0.6, its middle at (4, 2, 1), its right along +Y. It shows the object from
    # 0.2 to 0.6 of its width and from 0.1 to 0.9 of its height.
    height = 3.0 if size == "HEIGHT" else 0.8 * 0.6 / SHOWN  # the box is 1 high and 0.4 deep
    assert tuple(made.location)[1:] == pytest.approx((2.0 - 0.5 + 0.4, 1.0 - 0.3))
    preview = prepare_gaussians(**sphere_gaussians(200, 2)).bounds  # the first to be placed
    scale = 0.8 * 0.6 / SHOWN if size == "PICTURE" else 3.0 / preview.height
    assert made.location.x == pytest.approx(4.0 + preview.depth * scale / 2)
    assert made.rotation_euler.z == pytest.approx(math.pi / 2)
    bpy.context.view_layer.update()
    assert made.dimensions.z == pytest.approx(height)
    assert bpy.context.view_layer.objects.active == made
    assert list(bpy.context.selected_objects) == [made]


def test_a_batch_of_a_folder_with_a_bad_file(addon, tmp_path: Path, monkeypatch) -> None:
    from blender_addon import preferences

    bpy = addon.bpy
    folder = tmp_path / "Möbel alt"
    for name in ("a", "b"):
        picture(folder / f"{name}.png")
    (folder / "c.png").touch()
    settings = bpy.context.scene.gsv3d
    settings.batch_source, settings.folder = "FOLDER", str(folder)
    with FakeBackend(tmp_path, "normal") as fake:
        monkeypatch.setattr(
            preferences,
            "backend_place",
            lambda: preferences.BackendPlace("", fake.connection_path, tmp_path),
        )
        assert bpy.ops.gsv3d.batch() == {"FINISHED"}
        book = addon.session.get().book
        addon.drain_until(lambda: not book.active() and addon.session.get().delivery.idle)
    assert [j.name for j in book] == ["a", "b"]
    collection = bpy.data.collections["Möbel alt"]
    assert {"a", "b"} <= {o.name for o in collection.objects}


def test_a_batch_of_selected_empties(addon, tmp_path: Path, monkeypatch) -> None:
    from blender_addon import preferences

    bpy = addon.bpy
    for x, name in enumerate(("rechts", "links")):
        image_empty(bpy, picture(tmp_path / f"{name}.png"), x=-float(x)).select_set(True)
    with FakeBackend(tmp_path, "silent") as fake:
        monkeypatch.setattr(
            preferences,
            "backend_place",
            lambda: preferences.BackendPlace("", fake.connection_path, tmp_path),
        )
        bpy.ops.gsv3d.batch()
        assert [j.name for j in addon.session.get().book] == ["links", "rechts"]
        corners = [j.target.plane.corner[0] for j in addon.session.get().book]
        assert corners == pytest.approx([-1.0, 0.0], abs=1e-6)  # each at its own picture
        bpy.ops.gsv3d.cancel(all_jobs=True)
        assert not addon.session.get().book.active()
        bpy.ops.gsv3d.clear_jobs()
        assert not len(bpy.context.window_manager.gsv3d.jobs)


@pytest.mark.skipif(os.name == "nt", reason="makes a name that is not UTF-8")
def test_a_file_whose_name_is_not_utf_8(addon, tmp_path: Path) -> None:
    from blender_addon import references

    path = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"caf\xe9.png"))
    os.rename(picture(tmp_path / "x.png"), path)
    settings = addon.bpy.context.scene.gsv3d
    settings.filepath = path
    image = addon.bpy.data.images.load(path)
    for reference in (references.from_file(settings.filepath), references.from_image(image)):
        assert reference.filename.startswith("caf") and reference.name.startswith("caf")
        (reference.filename + reference.name).encode()  # the wire and Blender take UTF-8 alone
        assert decode(reference.data).shape == (3, 5, 4)
