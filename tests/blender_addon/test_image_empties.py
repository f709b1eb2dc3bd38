# SPDX-License-Identifier: GPL-3.0-or-later
"""Test which picture an image empty shows and where it stands."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from blender_addon.problems import Problem
from tests.blender_addon.reference_pictures import decode_picture, read_sent, save_picture

pytestmark = pytest.mark.bpy


@pytest.mark.parametrize("roll", [0, 90, 180, 270, 20, -110])
def test_a_picture_may_be_turned_upright_in_the_scene(empty_blender, tmp_path, roll) -> None:
    """The object stands below the middle of what shows it, on the picture's lower edge."""
    from mathutils import Euler, Matrix, Vector

    from blender_addon.image_empties import plane_of

    image = empty_blender.data.images.load(str(save_picture(tmp_path / "a.png", size=(40, 24))))
    empty = empty_blender.data.objects.new("a", None)
    empty_blender.context.scene.collection.objects.link(empty)
    empty.empty_display_type, empty.data, empty.empty_display_size = "IMAGE", image, 2.0
    empty.empty_image_offset = (-0.3, -0.6)
    upright = Euler((math.radians(90), 0, math.radians(35))).to_matrix().to_4x4()
    turn = Matrix.Rotation(math.radians(roll), 4, "Z")
    empty.matrix_world = Matrix.Translation((1, 2, 3)) @ upright @ turn
    empty_blender.context.view_layer.update()

    def world(x: float, y: float) -> Vector:  # in parts of the picture, from its upper left
        return empty.matrix_world @ Vector(((x - 0.3) * 2.0, (1 - y - 0.6) * 1.2, 0))

    box = {"left": 0.1, "top": 0.2, "right": 0.5, "bottom": 0.9}
    plane = plane_of(empty)
    base = Vector(plane.base_of(box, 0.0))
    lowest = sorted((world(x, y) for x in (0, 1) for y in (0, 1)), key=lambda corner: corner.z)
    below = lowest[0] + (lowest[1] - lowest[0]) * 0.5
    if roll % 90 == 0:
        middle = world(0.3, 0.55)
        assert (base.x, base.y) == pytest.approx((middle.x, middle.y), abs=1e-5)
        assert base.z == pytest.approx(lowest[0].z, abs=1e-5)
    assert plane.base_of({}, 0.0) == pytest.approx(tuple(below), abs=1e-5)
    assert plane.size_of(box) == pytest.approx(0.7 * 1.2)  # the other side is 0.4 * 2.0


def test_a_sequence_gives_the_frame_that_is_shown(
    empty_blender, references, tmp_path: Path
) -> None:
    from blender_addon.image_empties import shown_by

    bpy = empty_blender
    for frame in (1, 2, 3):
        save_picture(tmp_path / f"turn{frame:04d}.png", (80 * frame, 0, 0, 255))
        save_picture(tmp_path / f"turn{frame:04d}.tga", (80 * frame, 0, 0, 255))
    image = bpy.data.images.load(str(tmp_path / "turn0001.png"))
    image.source = "SEQUENCE"
    empty = add_empty(bpy, image)
    empty.image_user.frame_duration, empty.image_user.frame_offset = 3, 1
    bpy.context.scene.frame_set(2)
    reference = references.from_image(image, shown_by(bpy.context, empty))
    assert read_sent(reference) == (tmp_path / "turn0003.png").read_bytes()
    assert (reference.filename, reference.name) == ("turn0003.png", "turn0003")
    assert read_sent(references.from_image(image)) == (tmp_path / "turn0002.png").read_bytes()
    assert not image.is_dirty and empty.image_user.frame_offset == 1
    (tmp_path / "turn0003.png").unlink()
    with pytest.raises(Problem, match=r"turn0003\.png"):
        references.from_image(image, shown_by(bpy.context, empty))

    pixels = bpy.data.images.load(str(tmp_path / "turn0001.tga"))
    pixels.source = "SEQUENCE"
    assert decode_picture(read_sent(references.from_image(pixels)))[0, 0, 0] == 160
    assert not len(bpy.data.textures)


def test_a_movie_gives_the_frame_that_is_shown(empty_blender, references, tmp_path: Path) -> None:
    from blender_addon.image_empties import shown_by

    bpy = empty_blender
    image = bpy.data.images.load(str(render_movie(bpy, tmp_path / "turn.mp4")))
    assert image.source == "MOVIE"
    empty = add_empty(bpy, image)
    empty.image_user.frame_duration, empty.image_user.frame_start = 4, 2
    for frame, red in ((3, 80), (5, 160), (2, 40)):  # the empty begins at the second frame
        bpy.context.scene.frame_set(frame)
        reference = references.from_image(image, shown_by(bpy.context, empty))
        assert reference.filename == "turn.png"
        assert int(decode_picture(read_sent(reference))[3, 3, 0]) == pytest.approx(red, abs=3)
    bpy.context.scene.frame_set(90)
    assert int(decode_picture(read_sent(references.from_image(image)))[3, 3, 0]) == pytest.approx(
        160, abs=3
    )


def render_movie(bpy, path: Path) -> Path:
    """Render four frames of 64 x 64 pixels that get redder by 40 of 255 each."""
    scene = bpy.data.scenes.new("movie")
    editor = scene.sequence_editor_create()
    strips = editor.strips if hasattr(editor, "strips") else editor.sequences
    for frame in range(1, 5):
        length = {p.identifier for p in strips.bl_rna.functions["new_effect"].parameters}
        until = {"length": 1} if "length" in length else {"frame_end": frame + 1}
        strips.new_effect(f"{frame}", "COLOR", 1, frame, **until).color = (frame * 40 / 255, 0, 0)
    render = scene.render
    render.resolution_x = render.resolution_y = 64
    scene.frame_start, scene.frame_end = 1, 4
    if hasattr(render.image_settings, "media_type"):
        render.image_settings.media_type = "VIDEO"
    render.image_settings.file_format = "FFMPEG"
    render.ffmpeg.format, render.ffmpeg.codec = "MPEG4", "H264"
    scene.view_settings.view_transform = "Standard"
    render.filepath, render.use_file_extension = str(path), False
    bpy.ops.render.render(animation=True, scene="movie")
    bpy.data.scenes.remove(scene)
    return path


def add_empty(bpy, image):
    empty = bpy.data.objects.new("empty", None)
    empty.empty_display_type, empty.data = "IMAGE", image
    bpy.context.scene.collection.objects.link(empty)
    return empty
