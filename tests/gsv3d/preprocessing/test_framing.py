# SPDX-License-Identifier: Apache-2.0
"""Cut-outs and their placement, of pictures whose mask is known."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from skimage import data

from gsv3d.cameras import DISTANCE, FOV_DEG
from gsv3d.errors import ImageError, ModelError
from gsv3d.preprocessing import CutOut, cut_out, is_unsure, load_image, prepare, prepare_sizes
from gsv3d.preprocessing.framing import FILL
from gsv3d.preprocessing.saliency import check_cutout, estimate_certainty

WIDTH, HEIGHT = 300, 220


def draw_truth() -> np.ndarray:
    """Return (H, W) bool: an ellipse with a stem and a hole, not in the middle."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    body = ((x - 170) / 70.0) ** 2 + ((y - 130) / 55.0) ** 2 < 1
    stem = (abs(x - 170) < 9) & (y > 35) & (y < 100)
    hole = (x - 190) ** 2 + (y - 135) ** 2 < 20**2
    return (body | stem) & ~hole


def draw_scene(background, noise: float = 0.0, gradient: float = 0.0) -> np.ndarray:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    picture = np.empty((HEIGHT, WIDTH, 3))
    picture[:] = background
    picture += gradient * (x / WIDTH - 0.5)[..., None]
    picture[draw_truth()] = (150, 85, 40)
    rng = np.random.default_rng(0)
    picture += rng.normal(size=picture.shape) * noise
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


def lay_out(found: CutOut, shape: tuple[int, ...]) -> np.ndarray:
    """Return (H, W) alpha over the whole picture."""
    alpha = np.zeros(shape[:2])
    left, top, right, bottom = (round(x) for x in found.box)
    alpha[top:bottom, left:right] = found.alpha
    return alpha


def remove_background(rgb: np.ndarray) -> np.ndarray:
    return lay_out(cut_out(Image.fromarray(rgb)), rgb.shape)


def measure_iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize(
    ("background", "noise", "gradient"),
    [
        ((255, 255, 255), 0, 0),
        ((250, 250, 250), 8, 0),
        ((15, 15, 20), 5, 20),
        ((60, 120, 200), 6, 40),
        ((128, 128, 128), 4, 60),
        ((30, 160, 60), 4, 0),
    ],
)
def test_a_plain_background_is_removed(background, noise, gradient):
    alpha = remove_background(draw_scene(background, noise, gradient))
    assert measure_iou(alpha > 0.5, draw_truth()) > 0.965


def test_a_photograph_of_a_cup():
    """Find in scikit-image's photograph of a coffee cup the saucer, an ellipse of known size."""
    picture = data.coffee()
    alpha = remove_background(picture)
    y, x = np.mgrid[0 : picture.shape[0], 0 : picture.shape[1]]
    turn = np.deg2rad(12)
    u, v = x - 292, y - 216
    u, v = u * np.cos(turn) + v * np.sin(turn), -u * np.sin(turn) + v * np.cos(turn)
    saucer = (u / 215) ** 2 + (v / 170) ** 2 < 1
    # The table around the saucer must go, what lies well within it must stay.
    assert (alpha[((u / 265) ** 2 + (v / 235) ** 2) > 1] > 0.5).mean() < 0.03
    assert (alpha[saucer & (((u / 150) ** 2 + (v / 120) ** 2) < 1)] > 0.5).mean() > 0.95


def test_the_object_is_centered_and_fills_its_share():
    rgba = np.dstack([draw_scene((255, 255, 255)), draw_truth() * np.uint8(255)])
    for fill in (0.5, 0.75, 1.0):
        prepared = prepare(Image.fromarray(rgba), 128, fill).rgba
        assert prepared.shape == (128, 128, 4) and prepared.dtype == np.uint8
        solid = prepared[..., 3] > 127
        rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
        longer = max(np.ptp(rows), np.ptp(columns)) + 1
        assert longer == pytest.approx(fill * 128, abs=1)
        assert rows[0] + rows[-1] == pytest.approx(127, abs=1.5)
        assert columns[0] + columns[-1] == pytest.approx(127, abs=1.5)
        box = draw_truth()
        height, width = np.ptp(np.flatnonzero(box.any(1))), np.ptp(np.flatnonzero(box.any(0)))
        assert np.ptp(rows) / np.ptp(columns) == pytest.approx(height / width, rel=0.03)


@pytest.mark.parametrize("size", [63, 64, 96, 576])
@pytest.mark.parametrize(("height", "width"), [(101, 67), (100, 67), (37, 90)])
def test_an_ellipse_stands_in_the_middle_to_a_part_of_a_pixel(height, width, size):
    v, u = np.mgrid[: 8 * height, : 8 * width] + 0.5
    ellipse = (u / (4 * width) - 1) ** 2 + (v / (4 * height) - 1) ** 2 < 1
    alpha = np.pad(ellipse.reshape(height, 8, width, 8).mean(axis=(1, 3)), ((5, 8), (7, 3)))
    rgba = np.dstack([np.full((*alpha.shape, 3), 128), np.round(alpha * 255)]).astype(np.uint8)
    share = prepare(Image.fromarray(rgba), size, 0.75).rgba[..., 3] / 255
    middle = [(share.sum(axis) * (np.arange(size) + 0.5)).sum() / share.sum() for axis in (0, 1)]
    assert middle == pytest.approx([size / 2] * 2, abs=0.05)
    longer, shorter = max(height, width), min(height, width)
    assert share.mean() == pytest.approx(np.pi / 4 * 0.75**2 * shorter / longer, rel=0.005)


def test_own_alpha_is_used_as_it_is():
    """Tell a white object from transparent white by alpha."""
    rgba = np.full((HEIGHT, WIDTH, 4), 255, np.uint8)
    rgba[..., 3] = draw_truth() * 255
    prepared = prepare(Image.fromarray(rgba), 128).rgba
    share = draw_truth().sum() / (draw_truth().any(1).sum() * draw_truth().any(0).sum())
    solid = prepared[..., 3] > 127
    found = solid.sum() / (solid.any(1).sum() * solid.any(0).sum())
    assert found == pytest.approx(share, rel=0.03)


def test_the_background_does_not_bleed_into_the_object():
    """Show nothing of the magenta that programs often leave under alpha 0."""
    rgba = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    rgba[..., :3] = (255, 0, 255)
    rgba[draw_truth()] = (40, 160, 60, 255)
    prepared = prepare(Image.fromarray(rgba), 100).rgba
    assert np.abs(prepared[..., :3].astype(int) - (40, 160, 60)).max() <= 2


def test_the_background_color_is_taken_out_of_the_removed_rim():
    prepared = prepare(Image.fromarray(draw_scene((60, 120, 255), noise=2)), 128).rgba
    rim = (prepared[..., 3] > 20) & (prepared[..., 3] < 235)
    assert rim.any()
    assert np.abs(prepared[rim][:, :3].astype(int) - (150, 85, 40)).max() < 25


def test_dust_is_dropped_and_a_second_part_kept():
    rgba = np.zeros((200, 200, 4), np.uint8)
    rgba[60:140, 60:100] = (200, 100, 50, 255)
    rgba[60:140, 110:120] = (200, 100, 50, 255)  # a part of its own, an eighth
    rgba[5:7, 5:7] = (200, 100, 50, 255)  # dust
    prepared = prepare(Image.fromarray(rgba), 96, 0.8).rgba
    solid = prepared[..., 3] > 127
    assert np.ptp(np.flatnonzero(solid.any(1))) + 1 == pytest.approx(0.8 * 96, abs=1)
    assert np.diff(solid[48].astype(int)).tolist().count(1) == 2


def test_a_large_picture_is_prepared_too():
    rgba = np.dstack([draw_scene((255, 255, 255)), draw_truth() * np.uint8(255)])
    large = Image.fromarray(rgba).resize((3000, 2200))
    small = prepare(Image.fromarray(rgba), 64).rgba.astype(int)
    assert np.abs(prepare(large, 64).rgba.astype(int) - small)[..., 3].mean() < 2


@pytest.mark.parametrize(("size", "fill"), [(0, 0.75), (10**6, 0.75), (64, 0.0), (64, 1.5)])
def test_bounds_are_named(size, fill):
    with pytest.raises(ValueError, match="size must be|fill must be"):
        prepare(Image.new("RGBA", (64, 64)), size, fill)


def test_a_picture_of_one_color_has_no_object():
    with pytest.raises(ImageError, match="No object"):
        prepare(Image.new("RGB", (100, 80), (120, 130, 140)), 64)


def test_several_sizes_are_each_what_one_alone_would_be():
    image = Image.fromarray(draw_scene((250, 250, 250)))
    for size, prepared in zip((48, 96), prepare_sizes(image, (48, 96)), strict=True):
        np.testing.assert_array_equal(prepared.rgba, prepare(image, size).rgba)
    framed = prepare_sizes(image, (48, 96), (0.9, 0.75))
    for size, fill, prepared in zip((48, 96), (0.9, 0.75), framed, strict=True):
        np.testing.assert_array_equal(prepared.rgba, prepare(image, size, fill).rgba)
    with pytest.raises(ValueError, match="size"):
        prepare_sizes(image, (64, 4))
    with pytest.raises(ValueError, match="fill"):
        prepare_sizes(image, (48, 96), (0.9, 1.1))


EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.mark.parametrize(
    ("name", "photograph"),
    [("chair", "grass"), ("backpack", "gravel"), ("palm_tree", "moon"), ("burger", "brick")],
)
def test_an_object_over_a_photograph(name, photograph):
    """Compare with the object's own alpha."""
    rgba = np.asarray(Image.open(EXAMPLES / f"{name}.png").convert("RGBA"))
    alpha = rgba[..., 3:] / 255
    ground = Image.fromarray(getattr(data, photograph)()).convert("RGB").resize(rgba.shape[1::-1])
    picture = np.round(rgba[..., :3] * alpha + np.asarray(ground) * (1 - alpha)).astype(np.uint8)
    found = cut_out(Image.fromarray(picture))
    mine = lay_out(found, picture.shape)
    assert measure_iou(mine > 0.5, alpha[..., 0] > 0.5) > 0.95
    assert np.abs(mine - alpha[..., 0]).mean() < 0.01
    assert found.certainty > 0.9
    # No halo: the rim has the object's colors, not the photograph's.
    left, top, right, bottom = (round(x) for x in found.box)
    rim = (found.alpha > 0.1) & (found.alpha < 0.9) & (alpha[top:bottom, left:right, 0] > 0)
    wrong = np.abs(found.color - rgba[top:bottom, left:right, :3] / 255)[rim].mean()
    halo = np.abs(picture - rgba[..., :3].astype(float))[top:bottom, left:right][rim].mean() / 255
    assert wrong < 0.75 * halo


def draw_ellipse(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return x * x + y * y < 1


def enlarge(part: np.ndarray, height: int, width: int, top: int, left: int) -> Image.Image:
    rgba = np.zeros((height, width, 4), np.uint8)
    rgba[top : top + part.shape[0], left : left + part.shape[1]] = part
    return Image.fromarray(rgba)


def paint_mask(mask: np.ndarray, rgb: tuple[int, int, int], alpha: int = 255) -> np.ndarray:
    rgba = np.zeros((*mask.shape, 4), np.uint8)
    rgba[mask] = (*rgb, alpha)
    return rgba


def test_a_faint_layer_is_made_opaque():
    solid, faint = (enlarge(paint_mask(draw_ellipse(90, 60), (200, 90, 30), a), 200, 200, 50, 70)
                    for a in (255, 51))  # fmt: skip
    np.testing.assert_array_equal(prepare(faint, 96).rgba, prepare(solid, 96).rgba)


def test_a_layer_too_faint_is_refused_for_that_reason():
    faint = enlarge(paint_mask(draw_ellipse(90, 60), (200, 90, 30), 12), 200, 200, 50, 70)
    with pytest.raises(ImageError, match="too transparent: its opacity is 5 %"):
        prepare(faint, 96)


def test_glass_keeps_its_body():
    glass = np.vstack([paint_mask(np.ones((120, 70), bool), (180, 220, 240), 77),
                       paint_mask(np.ones((12, 70), bool), (90, 90, 95))])  # fmt: skip
    rgba = prepare(enlarge(glass, 200, 200, 30, 60), 128).rgba
    rows = np.flatnonzero(rgba[:, 64, 3] > 20)
    assert np.ptp(rows) + 1 == pytest.approx(0.75 * 128, abs=1)
    assert rgba[40, 64, 3] == 77 and rgba[rows[-1] - 3, 64, 3] == 255


@pytest.mark.parametrize("side", [2000, 4000])
def test_a_tiny_object_on_a_large_canvas_is_found(side):
    part = paint_mask(np.ones((36, 48), bool), (200, 90, 30))
    found = cut_out(enlarge(part, side, side, side // 2, side // 3))
    assert found.alpha.shape == (36, 48)
    assert found.alpha.min() == 1


def test_an_object_on_a_large_canvas_keeps_its_pixels():
    rng = np.random.default_rng(0)
    part = np.dstack([rng.integers(0, 256, (512, 512, 3), np.uint8), draw_ellipse(512, 512) * 255])
    found = cut_out(enlarge(part.astype(np.uint8), 4096, 4096, 1000, 2000))
    solid = found.alpha > 0.99
    np.testing.assert_array_equal(
        np.round(found.color[solid] * 255), part[..., :3][draw_ellipse(512, 512)]
    )


def test_an_object_that_fills_its_canvas_but_for_the_corners():
    found = cut_out(enlarge(paint_mask(np.ones((180, 196), bool), (20, 90, 30)), 200, 200, 10, 2))
    assert found.alpha.shape == (180, 196)


def test_a_shadow_in_alpha_is_left_out():
    """Remove a soft blob under a box, and keep dark glass of the same alpha."""
    y, x = np.mgrid[0:200, 0:200]
    blob = 140 * np.exp(-(((x - 110) / 45.0) ** 2 + ((y - 150) / 12.0) ** 2))
    rgba = np.zeros((200, 200, 4), np.uint8)
    rgba[..., 3] = blob
    rgba[60:150, 80:130] = (60, 130, 60, 255)
    left, top, right, bottom = cut_out(Image.fromarray(rgba)).box
    assert (left, top) == (80, 60) and right <= 132 and bottom <= 152
    rgba[..., 3] = 0
    rgba[60:150, 80:130] = (20, 20, 25, 128)
    rgba[60:75, 80:130] = (60, 130, 60, 255)
    assert cut_out(Image.fromarray(rgba)).box == (80, 60, 130, 150)


def test_a_shadow_on_a_plain_background_is_left_out():
    y, x = np.mgrid[0:300, 0:300]
    picture = np.full((300, 300, 3), 255.0)
    blob = np.exp(-(((x - 165) / 70.0) ** 2 + ((y - 225) / 14.0) ** 2))
    picture -= 120 * blob[..., None]
    picture[90:225, 110:200] = (60, 130, 60)
    picture[110:150, 125:185] = (230, 200, 60)
    found = cut_out(Image.fromarray(picture.astype(np.uint8)))
    assert found.box == pytest.approx((110, 90, 200, 225), abs=6)


def test_an_object_that_nearly_fills_an_opaque_picture():
    """Take the object, not the narrow white margin."""
    picture = np.full((240, 240, 3), 255, np.uint8)
    picture[8:232, 10:230] = (150, 85, 40)
    picture[60:180, 60:180] = (40, 60, 130)
    alpha = remove_background(picture)
    truth = np.zeros((240, 240), bool)
    truth[8:232, 10:230] = True
    assert measure_iou(alpha > 0.5, truth) > 0.95


def test_certainty_is_the_expected_overlap():
    """Compare with masks that are drawn from the probabilities."""
    rng = np.random.default_rng(0)
    probability = np.clip(rng.normal(0.5, 0.4, (60, 60)), 0, 1)
    drawn = rng.random((400, 60, 60)) < probability
    mask = probability > 0.5
    overlaps = [(mask & d).sum() / (mask | d).sum() for d in drawn]
    assert estimate_certainty(mask, probability) == pytest.approx(np.mean(overlaps), abs=0.005)
    assert is_unsure(0.5) and not is_unsure(0.99) and not is_unsure(None)


@pytest.mark.parametrize("ground", [255, 128, 0])
@pytest.mark.parametrize("pattern", ["stripes", "checks", "letters"])
def test_a_pattern_in_the_background_color_makes_the_cut_out_unsure(ground, pattern):
    """Be unsure of white stripes on a box before white, which look like slits."""
    y, x = np.mgrid[0:300, 0:300]
    box = (abs(x - 150) < 90) & (abs(y - 150) < 110)
    inner = (abs(x - 150) < 72) & (abs(y - 150) < 92)
    letters = Image.new("L", (300, 300))
    for i in range(4):
        font = ImageFont.load_default(60)
        ImageDraw.Draw(letters).text((150, 75 + 50 * i), "OHO8", 255, font, "mm", stroke_width=3)
    shown = {"stripes": y % 36 < 16, "checks": (x // 20 + y // 20) % 2 == 0,
             "letters": np.asarray(letters) > 127}[pattern]  # fmt: skip
    picture = np.full((300, 300, 3), ground, np.uint8)
    picture[box & ~(inner & shown)] = (180, 60, 40)
    found = cut_out(Image.fromarray(picture))
    missing = (box & (lay_out(found, picture.shape) < 0.5)).sum() / box.sum()
    assert missing > 0.1 and is_unsure(found.certainty)


def test_a_small_hole_in_a_sure_object_leaves_it_sure():
    found = cut_out(Image.fromarray(draw_scene((250, 250, 250))))
    assert (lay_out(found, (HEIGHT, WIDTH)) > 0.5)[135, 190] == 0 and not is_unsure(found.certainty)


def test_a_noisy_patch_of_the_background_color_stays():
    picture = np.full((300, 240, 3), 128.0)
    picture[40:260, 40:200] = (90, 88, 95)
    picture[40:65, 40:200] = picture[235:260, 40:200] = (45, 45, 50)
    rng = np.random.default_rng(0)
    picture[90:210, 70:170] = 128 + rng.normal(size=(120, 100, 1)) * 20
    alpha = remove_background(np.clip(picture, 0, 255).astype(np.uint8))
    assert (alpha[40:260, 40:200] > 0.5).mean() > 0.97


def test_nothing_of_the_network_is_loaded_for_a_picture_with_alpha():
    code = (
        "import sys; from PIL import Image; from gsv3d.preprocessing import prepare\n"
        f"prepare(Image.open({str(EXAMPLES / 'chair.png')!r}), 64)\n"
        "assert 'onnxruntime' not in sys.modules and 'skimage' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_cutout_that_is_unknown_or_not_installed_is_named(monkeypatch):
    image = Image.fromarray(draw_scene((250, 250, 250)))
    monkeypatch.setitem(sys.modules, "rembg.sessions", None)
    with pytest.raises(ModelError, match="'u2net' needs rembg"):
        prepare(image, 64, cutout="u2net")
    sessions = SimpleNamespace(
        sessions_class=[SimpleNamespace(name=lambda: "u2net"), SimpleNamespace(name=lambda: "sam")]
    )
    monkeypatch.setitem(sys.modules, "rembg.sessions", sessions)
    with pytest.raises(ModelError, match="no cut-out 'nonsense'. Choose one of u2netp, u2net[.]"):
        check_cutout("nonsense")
    check_cutout("u2net")
    check_cutout("u2netp")


def test_rembg_does_not_take_over_because_it_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "rembg", None)  # importing it would raise
    assert prepare(Image.fromarray(draw_scene((250, 250, 250))), 64).certainty > 0.9


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_the_box_is_that_of_the_picture_as_it_is_stored(orientation: int, kind: str) -> None:
    rgba = np.zeros((60, 100, 4), np.uint8)
    rgba[6:30, 10:80] = (200, 90, 30, 255)
    exif, file = Image.Exif(), io.BytesIO()
    exif[274] = orientation
    Image.fromarray(rgba).save(file, kind, exif=exif, lossless=True)
    image = load_image(file.getvalue())
    assert (image.width < image.height) == (orientation > 4)
    assert prepare(image, 32).box == pytest.approx((0.1, 0.1, 0.8, 0.5))


def test_the_add_on_knows_how_large_the_model_sees_an_object() -> None:
    from blender_addon.importers.placement import SHOWN

    across = 2 * DISTANCE * np.tan(np.deg2rad(FOV_DEG / 2))
    assert SHOWN == pytest.approx(FILL * across)
