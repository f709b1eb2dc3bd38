# SPDX-License-Identifier: GPL-3.0-or-later
"""The bytes of a reference that are sent."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blender_addon.problems import Problem
from tests.blender_addon.reference_pictures import decode_picture, read_sent, save_picture

pytestmark = pytest.mark.bpy


def test_an_unchanged_file_is_sent_as_it_is(empty_blender, references, tmp_path: Path) -> None:
    path = save_picture(tmp_path / "Bilder für Blender" / "Fäßchen 1.png")
    image = empty_blender.data.images.load(str(path))
    reference = references.from_image(image)
    assert read_sent(reference) == path.read_bytes()
    assert (reference.filename, reference.name) == ("Fäßchen 1.png", "Fäßchen 1")
    assert read_sent(references.from_file(path)) == path.read_bytes()
    assert references.from_file(path).source == reference.source  # the same picture


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_blender_shows_a_picture_as_its_file_stores_it(empty_blender, tmp_path, suffix) -> None:
    """The backend's box, by which results are stood before their picture, counts on it."""
    stored = Image.new("RGB", (40, 24), (250, 250, 250))
    stored.paste((10, 10, 10), (0, 0, 20, 12))
    for orientation in range(1, 9):
        exif, path = Image.Exif(), tmp_path / f"{orientation}.{suffix}"
        exif[274] = orientation
        stored.save(path, exif=exif)
        image = empty_blender.data.images.load(str(path))
        assert tuple(image.size) == stored.size
        shown = np.array(image.pixels[:]).reshape(24, 40, image.channels)[::-1, :, :3]
        assert np.abs(shown - np.asarray(stored) / 255).mean() < 0.02


def test_a_packed_file_needs_no_disk(empty_blender, references, tmp_path: Path) -> None:
    path = save_picture(tmp_path / "a.png")
    original = path.read_bytes()
    image = empty_blender.data.images.load(str(path))
    image.pack()
    path.unlink()
    assert read_sent(references.from_image(image)) == original


def test_a_file_that_is_gone_is_said(empty_blender, references, tmp_path: Path) -> None:
    path = save_picture(tmp_path / "a.png")
    image = empty_blender.data.images.load(str(path))
    path.unlink()
    with pytest.raises(Problem, match=r"a\.png is gone"):
        references.from_image(image)


def test_painted_pixels_are_what_is_sent(empty_blender, references, tmp_path: Path) -> None:
    image = empty_blender.data.images.load(str(save_picture(tmp_path / "a.png")))
    values = np.zeros((3, 5, 4), np.float32)
    values[0, 0] = (1.0, 0.5, 0.25, 1.0)  # Blender's first row is the lowest
    image.pixels.foreach_set(values.reshape(-1))
    assert image.is_dirty
    pixels = decode_picture(read_sent(references.from_image(image)))
    assert pixels.shape == (3, 5, 4)
    assert tuple(pixels[2, 0]) == (255, 128, 64, 255)
    assert pixels[0].max() == 0


def test_a_float_image_goes_to_srgb_with_straight_alpha(empty_blender, references) -> None:
    image = empty_blender.data.images.new("glow", 1, 1, alpha=True, float_buffer=True)
    image.pixels.foreach_set(np.array([0.25, 0.5, 2.0, 0.5], np.float32))
    pixel = decode_picture(read_sent(references.from_image(image)))[0, 0]
    # premultiplied and linear: 0.25 / 0.5 = 0.5 linear is 188 in sRGB; 1.0 and above are 255
    assert tuple(pixel) == (188, 255, 255, 128)


def test_an_image_without_pixels(empty_blender, references) -> None:
    image = empty_blender.data.images.new("none", 4, 4)
    image.source = "FILE"
    with pytest.raises(Problem):
        references.from_image(image)


def test_a_large_painted_image_is_reduced(empty_blender, references, monkeypatch) -> None:
    from blender_addon import pixels

    monkeypatch.setattr(pixels, "MAX_SIDE", 8)
    image = empty_blender.data.images.new("canvas", 32, 16, alpha=True)
    image.pixels.foreach_set(np.tile(np.float32([1.0, 0.5, 0.0, 1.0]), 32 * 16))
    reference = references.from_image(image)
    assert reference.filename == "canvas.png"
    assert decode_picture(read_sent(reference)).shape == (4, 8, 4)
    assert tuple(decode_picture(read_sent(reference))[1, 2]) == (255, 128, 0, 255)
    assert tuple(image.size) == (32, 16) and image.is_dirty
    assert references.from_image(image) == reference
    image.pixels.foreach_set(np.zeros(32 * 16 * 4, np.float32))
    assert references.from_image(image).source != reference.source


def test_a_file_changed_since_is_another_picture(empty_blender, references, tmp_path: Path) -> None:
    path = save_picture(tmp_path / "a.png")
    first = references.from_file(path)
    save_picture(path, size=(50, 30))
    assert references.from_file(path).source != first.source
    path.unlink()
    with pytest.raises(Problem, match="no file"):  # it is read when it is sent
        read_sent(first)


@pytest.mark.parametrize("file_format", ["JPEG", "OPEN_EXR", "OPEN_EXR_MULTILAYER"])
def test_the_render_result_is_sent_as_it_is_seen(
    empty_blender, references, tmp_path, file_format
) -> None:
    bpy = empty_blender
    scene = render_something(bpy)
    settings = scene.render.image_settings
    if hasattr(settings, "media_type"):
        multilayer = file_format == "OPEN_EXR_MULTILAYER"
        settings.media_type = "MULTI_LAYER_IMAGE" if multilayer else "IMAGE"
    settings.file_format = file_format
    settings.color_mode = "RGB"
    named = [p.identifier for p in settings.bl_rna.properties if not p.is_readonly]
    before = [getattr(settings, name) for name in named]
    reference = references.from_image(bpy.data.images["Render Result"])
    assert (reference.filename, reference.name) == ("Render Result.png", "Render Result")
    assert [getattr(settings, name) for name in named] == before
    pixels = decode_picture(read_sent(reference))
    assert pixels.shape == (4, 8, 4)
    assert tuple(pixels[0, 0]) == (188, 188, 188, 255)  # linear 0.5 in sRGB


def render_something(bpy):
    """Render a gray world at 8 x 4 pixels."""
    scene = bpy.context.scene
    scene.render.engine, scene.cycles.samples, scene.cycles.use_denoising = "CYCLES", 1, False
    scene.render.dither_intensity = 0.0
    scene.render.resolution_x, scene.render.resolution_y = 8, 4
    scene.view_settings.view_transform = "Standard"
    scene.camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    scene.collection.objects.link(scene.camera)
    scene.world = bpy.data.worlds.new("gray")
    if scene.world.node_tree is None:
        scene.world.use_nodes = True
    find_background(scene).inputs["Color"].default_value = (0.5, 0.5, 0.5, 1.0)
    bpy.ops.render.render()
    return scene


def find_background(scene):
    return next(n for n in scene.world.node_tree.nodes if n.type == "BACKGROUND")


def test_nothing_was_rendered(empty_blender, references) -> None:
    scene = render_something(empty_blender)
    image = empty_blender.data.images["Render Result"]
    empty_blender.context.window.scene = empty_blender.data.scenes.new("another")
    with pytest.raises(Problem, match="Render Result has no pixels. Render first"):
        references.from_image(image)
    assert scene.render.image_settings.file_format == "PNG"


def test_a_render_under_way_is_not_touched(empty_blender, references, monkeypatch) -> None:
    from blender_addon import compat

    render_something(empty_blender)
    monkeypatch.setattr(compat, "renders", lambda: True)  # its settings are those we would change
    with pytest.raises(Problem, match="still rendered. Wait"):
        references.from_image(empty_blender.data.images["Render Result"])


def test_the_combined_layer_of_a_multilayer_file(empty_blender, references, tmp_path: Path) -> None:
    bpy = empty_blender
    scene = render_something(bpy)
    settings = scene.render.image_settings
    if hasattr(settings, "media_type"):
        settings.media_type = "MULTI_LAYER_IMAGE"
    settings.file_format = "OPEN_EXR_MULTILAYER"
    scene.view_layers[0].use_pass_z = True
    scene.render.filepath = str(tmp_path / "vase.exr")
    bpy.ops.render.render(write_still=True)
    scenes = list(bpy.data.scenes)
    reference = references.from_image(bpy.data.images.load(str(tmp_path / "vase.exr")))
    assert reference.filename == "vase.png"
    assert tuple(decode_picture(read_sent(reference))[0, 0]) == (188, 188, 188, 255)
    assert list(bpy.data.scenes) == scenes

    for frame, strength in ((1, 0.0), (2, 0.5)):
        find_background(scene).inputs["Strength"].default_value = strength
        scene.render.filepath = str(tmp_path / f"turn{frame:04d}.exr")
        bpy.ops.render.render(write_still=True)
    sequence = bpy.data.images.load(str(tmp_path / "turn0001.exr"))
    sequence.source = "SEQUENCE"
    for frame, gray in ((2, 137), (1, 0)):  # linear 0.25 is 137
        scene.frame_set(frame)
        assert tuple(decode_picture(read_sent(references.from_image(sequence)))[0, 0]) == (
            gray,
        ) * 3 + (255,)


@pytest.mark.parametrize("packed", [False, True])
def test_the_active_tile_is_sent(empty_blender, references, tmp_path: Path, packed: bool) -> None:
    bpy = empty_blender
    for number, color in ((1001, (255, 0, 0, 255)), (1012, (0, 255, 0, 255))):
        save_picture(tmp_path / f"skin.{number}.png", color)
    image = bpy.data.images.load(str(tmp_path / "skin.1001.png"))
    image.source, image.filepath = "TILED", str(tmp_path / "skin.<UDIM>.png")
    image.reload()
    assert [tile.number for tile in image.tiles] == [1001, 1012]
    data = (tmp_path / "skin.1012.png").read_bytes()
    if packed:
        image.pack()
        (tmp_path / "skin.1012.png").unlink()
    image.tiles.active_index = 1
    assert read_sent(references.from_image(image)) == data
    assert references.from_image(image).name == "skin.1012"
    image.tiles.active_index = 0
    assert read_sent(references.from_image(image)) == (tmp_path / "skin.1001.png").read_bytes()
    image.pixels.foreach_set(np.ones(5 * 3 * 4, np.float32))
    assert decode_picture(read_sent(references.from_image(image))).min() == 255
    image.tiles.active_index = 1
    with pytest.raises(Problem, match="Tile 1012 .* not saved"):
        references.from_image(image)


def test_a_tile_that_has_no_file(empty_blender, references) -> None:
    image = empty_blender.data.images.new("skin", 8, 8, tiled=True)
    image.tiles.new(1012)
    assert decode_picture(read_sent(references.from_image(image))).shape == (8, 8, 4)
    image.tiles.active_index = 1
    assert not image.is_dirty
    with pytest.raises(Problem, match="Tile 1012 .* not saved"):
        references.from_image(image)


def test_an_image_of_a_library_is_found_beside_it(
    empty_blender, references, tmp_path: Path
) -> None:
    bpy = empty_blender
    path = save_picture(tmp_path / "props" / "tex" / "oak.png")
    image = bpy.data.images.load(str(path))
    image.use_fake_user = True
    image.filepath = "//tex/oak.png"
    bpy.data.libraries.write(str(tmp_path / "props" / "lib.blend"), {image}, path_remap="NONE")
    bpy.data.images.remove(image)
    with bpy.data.libraries.load(str(tmp_path / "props" / "lib.blend"), link=True) as (found, into):
        into.images = found.images
    assert into.images[0].library is not None
    assert read_sent(references.from_image(into.images[0])) == path.read_bytes()


@pytest.mark.parametrize("limit", ["MAX_FILE_BYTES", "MAX_FILE_PIXELS"])
def test_a_file_too_large_to_be_sent_is_sent_as_pixels(
    empty_blender, references, tmp_path: Path, monkeypatch, limit: str
) -> None:
    path = save_picture(tmp_path / "a.png")
    monkeypatch.setattr(references, limit, 10)
    image = empty_blender.data.images.load(str(path))
    assert tuple(image.size) == (5, 3)  # Blender has it in memory from now on
    data = read_sent(references.from_image(image))
    assert data != path.read_bytes() and decode_picture(data).shape == (3, 5, 4)


@pytest.mark.skipif(os.name == "nt", reason="makes a name that is not UTF-8")
def test_a_file_whose_name_is_not_utf_8(addon, references, tmp_path: Path) -> None:
    path = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"caf\xe9.png"))
    os.rename(save_picture(tmp_path / "x.png"), path)
    settings = addon.bpy.context.scene.gsv3d
    settings.filepath = path
    image = addon.bpy.data.images.load(path)
    for reference in (references.from_file(settings.filepath), references.from_image(image)):
        assert reference.filename.startswith("caf") and reference.name.startswith("caf")
        (reference.filename + reference.name).encode()  # the wire and Blender take UTF-8 alone
        assert decode_picture(read_sent(reference)).shape == (3, 5, 4)
