# SPDX-License-Identifier: Apache-2.0
"""Pictures of more than 8 bits a sample, and TIFFs of several pages."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from gsv3d.errors import ImageError
from gsv3d.preprocessing import load_image
from tests.gsv3d.preprocessing.pictures import (
    add_sub_pages,
    convert_to_srgb,
    decode,
    draw_shades,
    encode,
    encode_pages,
    encode_tiff,
    make_linear_profile,
)


def test_sixteen_bit_gray_keeps_its_brightness():
    ramp = np.linspace(0, 65535, 48 * 32).reshape(32, 48).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        found = decode(encode(Image.fromarray(ramp), kind))
        np.testing.assert_allclose(found[..., 0], ramp / 257.0, atol=0.51)
    dark = np.full((32, 48), 200, np.uint16)  # nearly black, not 200 of 255
    assert decode(encode(Image.fromarray(dark)))[..., 0].max() <= 1


def test_floating_point_tiff():
    values = np.tile(np.linspace(0, 1, 48, dtype=np.float32), (32, 1))
    found = decode(encode(Image.fromarray(values), "TIFF"))
    np.testing.assert_allclose(found[..., 1], values * 255, atol=0.51)


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "u2", "u4", "i2", ">u2"])
@pytest.mark.parametrize("layout", ["rgb", "rgba", "planar", "gray", "white is zero", "zip"])
def test_deep_tiffs_show_what_is_in_them(kind, layout):
    white = 1 if np.dtype(kind).kind == "f" else np.iinfo(kind).max
    values, expected, options = draw_shades(), draw_shades(), {"photometric": "rgb"}
    if layout == "rgba":
        values = np.dstack([values, values[..., 0]])
        options["extrasamples"] = ["unassalpha"]
    elif layout == "planar":
        values, options["planarconfig"] = values.transpose(2, 0, 1), "separate"
    elif layout == "gray":
        values, options = values[..., 0], {"photometric": "minisblack"}
        expected = np.repeat(values[..., None], 3, axis=-1)
    elif layout == "white is zero":
        values, options = 1 - values[..., 0], {"photometric": "miniswhite"}
        expected = np.repeat(1 - values[..., None], 3, axis=-1)
    elif layout == "zip":
        options["compression"] = "zlib"
    byteorder = ">" if kind[0] == ">" else "<"
    found = decode(encode_tiff((values * white).astype(kind), byteorder=byteorder, **options))
    np.testing.assert_allclose(found[..., :3], expected * 255, atol=0.6)
    alpha = values[..., 3] * 255 if layout == "rgba" else 255
    np.testing.assert_allclose(found[..., 3], alpha, atol=0.6)


def test_premultiplied_alpha_of_a_deep_tiff():
    picture = np.zeros((32, 32, 4), np.float32)
    picture[..., 3], picture[..., 0] = 0.5, 0.25
    picture[:4] = 0
    found = decode(encode_tiff(picture, photometric="rgb", extrasamples=["assocalpha"]))
    assert abs(found[20, 20] - [128, 0, 0, 128]).max() <= 1 and (found[:4] == 0).all()


def test_floats_over_white_are_cut_off():
    """Leave the rest of a picture with a highlight as it is, unlike floats that count to 255."""
    values = draw_shades().astype(np.float32)
    values[:4, :4] = 900.0
    values[5, 5] = np.nan
    found = decode(encode_tiff(values, photometric="rgb"))
    assert (found[:4, :4, :3] == 255).all() and (found[5, 5, :3] == 0).all()
    np.testing.assert_allclose(found[8:, :, :3], draw_shades()[8:] * 255, atol=0.6)
    for white in (255, 65535):
        found = decode(encode_tiff((draw_shades() * white).astype(np.float32), photometric="rgb"))
        np.testing.assert_allclose(found[..., :3], draw_shades() * 255, atol=0.6)


@pytest.mark.parametrize("shape", ["gray", "rgb"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 15])
def test_fewer_bits_in_samples_of_sixteen(bits, shape):
    values = (
        draw_shades() if shape == "rgb" else draw_shades()[..., 0] / draw_shades()[..., 0].max()
    )
    data = encode_tiff(
        np.round(values * (2**bits - 1)).astype(np.uint16),
        photometric="rgb" if shape == "rgb" else "minisblack",
    )
    expected = values if shape == "rgb" else np.repeat(values[..., None], 3, axis=-1)
    np.testing.assert_allclose(decode(data)[..., :3], expected * 255, atol=1)


def test_a_dark_picture_of_sixteen_bits_stays_dark():
    values = np.round(draw_shades() * 9000).astype(np.uint16)
    found = decode(encode_tiff(values, photometric="rgb"))
    np.testing.assert_allclose(found[..., :3], draw_shades() * 9000 / 257, atol=0.6)


def test_the_range_a_tiff_states_is_heeded():
    values = np.round(100 + draw_shades() * 20000).astype(np.uint16)
    stated = [(340, "H", 3, (100,) * 3, True), (341, "H", 3, (20100,) * 3, True)]
    found = decode(encode_tiff(values, photometric="rgb", extratags=stated))
    np.testing.assert_allclose(found[..., :3], draw_shades() * 255, atol=0.6)


def test_orientation_and_profile_of_a_deep_tiff():
    picture = np.full((32, 48, 3), 55 / 255, np.float32)
    picture[:, :4] = 1
    turned = [(274, "H", 1, 6, True)]  # the first row is the right side
    found = decode(
        encode_tiff(picture, photometric="rgb", iccprofile=make_linear_profile(), extratags=turned)
    )
    assert found.shape == (48, 32, 4) and (found[:4, :, :3] >= 254).all()
    np.testing.assert_allclose(found[8:, :, :3], convert_to_srgb(55 / 255), atol=2)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_the_largest_page_is_taken(kind):
    white = np.iinfo(kind).max if np.dtype(kind).kind == "u" else 1
    small = np.zeros((20, 24, 3), np.uint8)
    large = (draw_shades() * white).astype(kind)
    for pages in ((small, large), (large, small), (small, small, large)):
        found = decode(encode_pages(*pages))
        np.testing.assert_allclose(found[..., :3], draw_shades() * 255, atol=1)
    first = np.full((20, 24, 3), 7, np.uint8)
    assert decode(encode_pages(first, small))[0, 0, 0] == 7


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_a_whole_picture_beneath_its_thumbnail_is_taken(kind, bigtiff):
    thumbnail, small = np.zeros((20, 24, 3), np.uint8), np.full((24, 24, 3), 7, np.uint8)
    large = (draw_shades() * np.iinfo(kind).max).astype(kind)
    for others in ((large,), (small, large), (large, small)):
        found = decode(add_sub_pages(thumbnail, *others, bigtiff=bigtiff))
        np.testing.assert_allclose(found[..., :3], draw_shades() * 255, atol=1)
    found = decode(add_sub_pages(large, thumbnail, bigtiff=bigtiff))
    np.testing.assert_allclose(found[..., :3], draw_shades() * 255, atol=1)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_picture_beneath_its_thumbnail_is_turned_as_that(kind):
    large = (draw_shades() * np.iinfo(kind).max).astype(kind)
    turned = [(274, "H", 1, 6, True)]
    found = decode(add_sub_pages(np.zeros((20, 24, 3), np.uint8), large, extratags=turned))
    np.testing.assert_allclose(found[..., :3], np.rot90(draw_shades(), -1) * 255, atol=1)


def test_raw_sensor_data_are_not_taken_for_the_picture():
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(np.zeros((20, 24, 3), np.uint8), photometric="rgb", subifds=2)
        writer.write(np.zeros((200, 200), np.uint16), photometric="cfa")
        writer.write((draw_shades() * 255).astype(np.uint8), photometric="rgb")
    np.testing.assert_allclose(decode(file.getvalue())[..., :3], draw_shades() * 255, atol=1)


def test_a_tiff_that_is_whole_but_unknown_is_not_called_damaged():
    data = bytearray(encode_tiff(draw_shades().astype(np.float32), photometric="rgb"))
    at = data.index(struct.pack("<HHI", 259, 3, 1))  # the compression
    data[at + 8 : at + 10] = struct.pack("<H", 5)
    with pytest.raises(ImageError, match=r"of a kind .*32 bits a sample, floats, compression LZW"):
        load_image(bytes(data))


def test_a_tiff_whose_width_is_a_list_is_refused():
    data = bytearray(encode_tiff(draw_shades().astype(np.float32), photometric="rgb"))
    at = data.index(struct.pack("<HHI", 256, 4, 1))
    data[at + 4 : at + 12] = struct.pack("<II", 3, 8)  # three values, elsewhere in the file
    with pytest.raises(ImageError):
        load_image(bytes(data))
