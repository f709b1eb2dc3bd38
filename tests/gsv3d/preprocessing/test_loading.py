# SPDX-License-Identifier: Apache-2.0
"""Every kind of picture file ends as the same 8-bit sRGB with alpha."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from gsv3d.errors import ImageError
from gsv3d.preprocessing import load_image


def colours() -> np.ndarray:
    """(32, 48, 3): red, green, blue and white quarters."""
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:16, :24], picture[:16, 24:] = (200, 30, 20), (20, 180, 40)
    picture[16:, :24], picture[16:, 24:] = (30, 40, 190), (240, 240, 240)
    return picture


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def rgba(data: bytes) -> np.ndarray:
    image = load_image(data)
    assert image.mode == "RGBA"
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "TGA", "GIF", "PPM"])
def test_formats_without_loss_give_the_pixels(kind):
    found = rgba(encoded(Image.fromarray(colours()), kind))
    np.testing.assert_array_equal(found[..., :3], colours())
    assert (found[..., 3] == 255).all()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_formats_with_loss_give_nearly_the_pixels(kind):
    found = rgba(encoded(Image.fromarray(colours()), kind, quality=95))
    middles = found[8::16, 12::24, :3]
    np.testing.assert_allclose(middles, colours()[8::16, 12::24], atol=6)


def test_alpha_is_kept_straight():
    picture = np.dstack([colours(), np.full((32, 48), 77, np.uint8)])
    np.testing.assert_array_equal(rgba(encoded(Image.fromarray(picture))), picture)


def test_grey_and_grey_with_alpha():
    grey = colours()[..., 0]
    found = rgba(encoded(Image.fromarray(grey)))
    np.testing.assert_array_equal(found[..., :3], np.repeat(grey[..., None], 3, axis=2))
    both = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(grey)])
    np.testing.assert_array_equal(rgba(encoded(both))[..., 3], grey)


def test_sixteen_bit_grey_keeps_its_brightness():
    ramp = np.linspace(0, 65535, 48 * 32).reshape(32, 48).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        found = rgba(encoded(Image.fromarray(ramp), kind))
        np.testing.assert_allclose(found[..., 0], ramp / 257.0, atol=0.51)
    dark = np.full((32, 48), 200, np.uint16)  # nearly black, not 200 of 255
    assert rgba(encoded(Image.fromarray(dark)))[..., 0].max() <= 1


def test_floating_point_tiff():
    values = np.tile(np.linspace(0, 1, 48, dtype=np.float32), (32, 1))
    found = rgba(encoded(Image.fromarray(values), "TIFF"))
    np.testing.assert_allclose(found[..., 1], values * 255, atol=0.51)


def test_palette_with_a_transparent_entry():
    image = Image.fromarray(colours()).quantize(8)
    key = int(np.asarray(image)[2, 2])
    found = rgba(encoded(image, transparency=key))
    assert found[2, 2, 3] == 0 and found[30, 40, 3] == 255
    np.testing.assert_allclose(found[30, 40, :3], (240, 240, 240), atol=2)


def test_one_bit():
    found = rgba(encoded(Image.fromarray(colours()[..., 0] > 100)))
    assert found[2, 2, 0] == 255 and found[2, 40, 0] == 0


def test_cmyk_jpeg_has_the_right_colours():
    image = Image.fromarray(colours()).convert("CMYK")
    found = rgba(encoded(image, "JPEG", quality=95))
    np.testing.assert_allclose(found[8::16, 12::24, :3], colours()[8::16, 12::24], atol=8)


def test_an_embedded_profile_is_heeded():
    """A linear-light grey of 55 is an sRGB grey of about 128."""
    linear = _linear_profile()
    picture = np.full((32, 32, 3), 55, np.uint8)
    found = rgba(encoded(Image.fromarray(picture), icc_profile=linear))
    expected = 255 * (1.055 * (55 / 255) ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(found[..., :3], expected, atol=2)


def test_a_broken_profile_is_ignored():
    found = rgba(encoded(Image.fromarray(colours()), icc_profile=b"no profile" * 20))
    np.testing.assert_array_equal(found[..., :3], colours())


def _linear_profile() -> bytes:
    """sRGB's own profile with its tone curves replaced by straight lines (count 0: identity)."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for i in range(int.from_bytes(data[128:132], "big")):
        entry = 132 + 12 * i
        if data[entry : entry + 4] in (b"rTRC", b"gTRC", b"bTRC"):
            offset = int.from_bytes(data[entry + 4 : entry + 8], "big")
            data[offset : offset + 12] = b"curv" + bytes(8)
    return bytes(data)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    # How a viewer turns the stored picture upright, from the EXIF standard's table.
    upright = colours()
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), exif=exif.tobytes())
    np.testing.assert_array_equal(rgba(data)[..., :3], upright)


def test_paths_with_spaces_and_umlauts(tmp_path):
    path = tmp_path / "Meine Fässer" / "faß 1.png"
    path.parent.mkdir()
    path.write_bytes(encoded(Image.fromarray(colours())))
    assert load_image(path).size == (48, 32)
    assert load_image(str(path)).size == (48, 32)


_WHOLE = [encoded(Image.fromarray(colours()), kind) for kind in ("PNG", "JPEG", "GIF", "TIFF")]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    which=st.integers(0, len(_WHOLE) - 1),
    cut=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
)
def test_damaged_files_give_a_picture_or_a_sentence(which, cut, changes):
    data = bytearray(_WHOLE[which])
    for where, value in changes:
        data[int(where * len(data))] = value
    data = data[: max(1, int(cut * len(data)))]
    try:
        assert load_image(bytes(data)).mode == "RGBA"
    except ImageError as error:
        assert error.message.endswith(".") and error.hint


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_a_sentence(data):
    with pytest.raises(ImageError):
        load_image(data)
