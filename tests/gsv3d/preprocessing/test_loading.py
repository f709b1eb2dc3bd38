# SPDX-License-Identifier: Apache-2.0
"""Every kind of picture file ends as the same 8-bit sRGB with alpha."""

from __future__ import annotations

import os
import socket

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from gsv3d.errors import ImageError
from gsv3d.preprocessing import load_image
from tests.gsv3d.preprocessing.pictures import (
    add_sub_pages,
    convert_to_srgb,
    decode,
    draw_colors,
    draw_shades,
    encode,
    encode_pages,
    encode_tiff,
    make_gray_profile,
    make_linear_profile,
)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "TGA", "GIF", "PPM"])
def test_formats_without_loss_give_the_pixels(kind):
    found = decode(encode(Image.fromarray(draw_colors()), kind))
    np.testing.assert_array_equal(found[..., :3], draw_colors())
    assert (found[..., 3] == 255).all()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_formats_with_loss_give_nearly_the_pixels(kind):
    found = decode(encode(Image.fromarray(draw_colors()), kind, quality=95))
    middles = found[8::16, 12::24, :3]
    np.testing.assert_allclose(middles, draw_colors()[8::16, 12::24], atol=6)


def test_alpha_is_kept_straight():
    picture = np.dstack([draw_colors(), np.full((32, 48), 77, np.uint8)])
    np.testing.assert_array_equal(decode(encode(Image.fromarray(picture))), picture)


def test_gray_and_gray_with_alpha():
    gray = draw_colors()[..., 0]
    found = decode(encode(Image.fromarray(gray)))
    np.testing.assert_array_equal(found[..., :3], np.repeat(gray[..., None], 3, axis=2))
    both = Image.merge("LA", [Image.fromarray(gray), Image.fromarray(gray)])
    np.testing.assert_array_equal(decode(encode(both))[..., 3], gray)


def test_palette_with_a_transparent_entry():
    image = Image.fromarray(draw_colors()).quantize(8)
    key = int(np.asarray(image)[2, 2])
    found = decode(encode(image, transparency=key))
    assert found[2, 2, 3] == 0 and found[30, 40, 3] == 255
    np.testing.assert_allclose(found[30, 40, :3], (240, 240, 240), atol=2)


def test_one_bit():
    found = decode(encode(Image.fromarray(draw_colors()[..., 0] > 100)))
    assert found[2, 2, 0] == 255 and found[2, 40, 0] == 0


def test_cmyk_jpeg_has_the_right_colors():
    image = Image.fromarray(draw_colors()).convert("CMYK")
    found = decode(encode(image, "JPEG", quality=95))
    np.testing.assert_allclose(found[8::16, 12::24, :3], draw_colors()[8::16, 12::24], atol=8)


def test_an_embedded_profile_is_heeded():
    """Turn a linear-light gray of 55 into an sRGB gray of about 128."""
    linear = make_linear_profile()
    picture = np.full((32, 32, 3), 55, np.uint8)
    found = decode(encode(Image.fromarray(picture), icc_profile=linear))
    expected = 255 * (1.055 * (55 / 255) ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(found[..., :3], expected, atol=2)


def test_a_broken_profile_is_ignored():
    found = decode(encode(Image.fromarray(draw_colors()), icc_profile=b"no profile" * 20))
    np.testing.assert_array_equal(found[..., :3], draw_colors())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    # How a viewer turns the stored picture upright, from the EXIF standard's table.
    upright = draw_colors()
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
    data = encode(Image.fromarray(np.ascontiguousarray(stored)), exif=exif.tobytes())
    np.testing.assert_array_equal(decode(data)[..., :3], upright)


def test_paths_with_spaces_and_umlauts(tmp_path):
    path = tmp_path / "Meine Fässer" / "faß 1.png"
    path.parent.mkdir()
    path.write_bytes(encode(Image.fromarray(draw_colors())))
    assert load_image(path).size == (48, 32)
    assert load_image(str(path)).size == (48, 32)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16", "TIFF16", "TIFF"])
def test_a_profile_of_gray_is_heeded(mode):
    profile, value = make_gray_profile(1.0), 55
    gray = Image.new("L", (32, 32), value)
    alpha = Image.linear_gradient("L").resize((32, 32))
    if mode == "1":
        found = decode(encode(gray.point(lambda v: 255).convert("1"), icc_profile=profile))
        np.testing.assert_array_equal(found, 255)
        return
    if mode == "LA":
        found = decode(encode(Image.merge("LA", [gray, alpha]), icc_profile=profile))
        np.testing.assert_array_equal(found[..., 3], np.asarray(alpha))
    elif mode == "I;16":
        deep = Image.fromarray(np.full((32, 32), value * 257, np.uint16))
        found = decode(encode(deep, icc_profile=profile))
    elif mode == "TIFF16":
        deep = np.full((32, 32), value * 257, np.uint16)
        found = decode(encode_tiff(deep, photometric="minisblack", iccprofile=profile))
    else:
        found = decode(encode(gray, "TIFF" if mode == "TIFF" else "PNG", icc_profile=profile))
    np.testing.assert_allclose(found[..., :3], convert_to_srgb(value / 255), atol=2)


@pytest.mark.parametrize("transparent", [None, "one", "many"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_profile_of_a_palette_is_heeded(transparent, kind):
    image = Image.new("P", (32, 32), 1)
    image.putpalette([0, 0, 0, 55, 120, 200, 9, 9, 9])
    image.paste(2, (0, 0, 8, 8))
    options = {"icc_profile": make_linear_profile()}
    if transparent and kind == "PNG":
        options["transparency"] = 2 if transparent == "one" else bytes([255, 90, 0])
    found = decode(encode(image, kind, **options))
    np.testing.assert_allclose(
        found[20, 20, :3],
        [convert_to_srgb(55 / 255), convert_to_srgb(120 / 255), convert_to_srgb(200 / 255)],
        atol=2,
    )
    if transparent and kind == "PNG":
        assert found[2, 2, 3] == 0 and found[20, 20, 3] == (255 if transparent == "one" else 90)
    else:
        assert (found[..., 3] == 255).all()


def test_a_profile_of_another_kind_of_picture_is_ignored():
    found = decode(encode(Image.fromarray(draw_colors()), icc_profile=make_gray_profile(1.0)))
    np.testing.assert_array_equal(found[..., :3], draw_colors())
    gray = np.full((32, 32), 55, np.uint8)  # a colored profile says how gray looks, too
    found = decode(encode(Image.fromarray(gray), icc_profile=make_linear_profile()))
    np.testing.assert_allclose(found[..., :3], convert_to_srgb(55 / 255), atol=2)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow does not read AVIF")
def test_a_damaged_avif_is_refused():
    data = bytearray(encode(Image.new("RGBA", (32, 32), (200, 30, 20, 99)), "AVIF"))
    refused = 0
    for place in range(len(data) // 2, len(data)):
        damaged = data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]
        try:
            assert load_image(bytes(damaged)).mode == "RGBA"
        except ImageError:
            refused += 1
    assert refused


@pytest.mark.skipif(os.name != "posix", reason="named pipes have another form there")
def test_pipes_devices_and_sockets_are_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        # The path of a socket is short, that of a test may not be.
        server.bind(os.path.relpath(tmp_path / "socket.png"))
        for path in (tmp_path / "pipe.png", tmp_path / "socket.png", "/dev/zero"):
            with pytest.raises(ImageError, match="is a device or a pipe"):
                load_image(path)


@pytest.mark.skipif(os.name != "nt", reason="devices have these names on Windows")
@pytest.mark.parametrize("name", ["NUL", "CON", r"\\.\pipe\gsv3d-none"])
def test_devices_of_windows_are_refused(name):
    with pytest.raises(ImageError):
        load_image(name)


_WHOLE = [
    *(encode(Image.fromarray(draw_colors()), kind) for kind in ("PNG", "JPEG", "GIF", "TIFF")),
    encode(Image.new("L", (32, 32), 55), icc_profile=make_gray_profile(1.0)),
    encode_tiff(draw_shades().astype(np.float32), photometric="rgb"),
    encode_tiff((draw_shades() * 4095).astype(np.uint16), photometric="rgb", compression="zlib"),
    encode_pages(np.zeros((20, 24, 3), np.uint8), (draw_shades() * 65535).astype(np.uint16)),
    add_sub_pages(np.zeros((20, 24, 3), np.uint8), (draw_shades() * 255).astype(np.uint8)),
]


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
