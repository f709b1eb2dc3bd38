# SPDX-License-Identifier: Apache-2.0
"""The artist's way through a real Blender, with the zip that is shipped and the real backend.

All tests of this file assert on the facts and screenshots of one run of Blender.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import guide
from tests.window import pictures, plays

pytestmark = [pytest.mark.window, pytest.mark.timeout(1500)]

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".window"
IMAGE = ROOT / "examples" / "barrel.png"
HERE = Path(__file__).parent
FACES = 5000

LIMIT_S = 1000
"""Seconds Blender may take for the whole play, on two cores without a graphics card."""


@dataclass(frozen=True)
class Run:
    """Facts and screenshots of one run of Blender."""

    facts: dict[str, Any]
    leftovers: list[str]

    def picture(self, name: str) -> pictures.Picture:
        """Return a screenshot."""
        return pictures.load(FOLDER / f"{name}.png")

    def sidebar(self, name: str) -> pictures.Picture:
        """Return the sidebar in a screenshot."""
        return pictures.crop(self.picture(name), self.facts["sidebar"])

    def narrow(self, name: str) -> pictures.Picture:
        """Return the sidebar as wide as Blender makes it, in an early screenshot."""
        return pictures.crop(self.picture(name), self.facts["narrow"])

    def bar(self, name: str) -> int:
        """Return the filled pixels of the progress bar in the row below Generate; 0 without one."""
        left, _, width, _ = self.facts["sidebar"]
        row = (left, self.facts["generate"][1] + 18, width, 36)
        return pictures.measure_blue_bar(pictures.crop(self.picture(name), row))

    def view(self, name: str) -> pictures.Picture:
        """Return the 3D view left of the sidebar, below its header and beside its toolbar."""
        x, y, width, height = self.facts["view"]
        right = self.facts["sidebar"][0]
        return pictures.crop(self.picture(name), (x + 70, y + 60, right - x - 130, height - 60))


@pytest.fixture(scope="module")
def run() -> Run:
    """Build, install and play."""
    settings = {
        "patience": 400,
        "limit": LIMIT_S,
        "shot_every": 2.5,
        # So many that Blender, drawing without a card, sees coarse Gaussians before the final ones.
        "steps": 16,
        "long_steps": 60,
        "walk": guide.list_presses(),
    }
    facts, leftovers = plays.play(FOLDER, HERE / "scenario.py", IMAGE, settings, LIMIT_S)
    return Run(facts, leftovers)


def test_the_panel_is_drawn_and_its_buttons_answer(run: Run) -> None:
    assert run.facts["tab"] == "GSV3D"
    # A region that was never drawn has one color; letters, fields and icons have many.
    assert pictures.count_colors(run.sidebar("reference")) > 25
    x, y = run.facts["generate"]
    left, top, width, height = run.facts["sidebar"]
    assert left < x < left + width and top < y < top + height


def test_the_reference_is_an_image_empty_and_in_view(run: Run) -> None:
    assert run.facts["empty"]["selected"] and run.facts["empty"]["image"] == IMAGE.name
    shown = run.view("reference").reshape(-1, 3)
    from PIL import Image

    with Image.open(IMAGE) as image:
        rgba = np.asarray(image.convert("RGBA")).reshape(-1, 4)
    palette = rgba[rgba[:, 3] > 250][:, :3]
    colorful = shown[np.ptp(shown.astype(int), axis=1) > 40]
    assert len(colorful) > 5000
    assert pictures.find_near(colorful, palette, 16).mean() > 0.6


def test_a_dropped_picture_is_blenders_own_until_the_tab_is_open(run: Run) -> None:
    own = run.facts["drop"]["Item"]
    assert own and not any("gsv3d" in operator for operator in own)
    assert run.facts["drop"]["GSV3D"] == [*own, "gsv3d.generate_dropped"]
    assert pictures.find_difference(
        run.view("drop"), run.view("reference")
    ).any()  # a menu is there


def test_the_cut_out_is_shown_and_is_no_image_of_the_file(run: Run) -> None:
    assert run.facts["cutout"]["png"] > 1000 and run.facts["cutout"]["images"] == 0
    assert "transparency" in run.facts["cutout"]["words"]
    from PIL import Image

    with Image.open(IMAGE) as image:
        rgba = np.asarray(image.convert("RGBA")).reshape(-1, 4)
    palette = rgba[rgba[:, 3] > 250][:, :3]
    shown = run.sidebar("cutout").reshape(-1, 3)
    colorful = shown[np.ptp(shown.astype(int), axis=1) > 80]
    assert pictures.find_near(colorful, palette, 24).mean() > 0.6
    assert len(colorful) > 3000


def test_what_few_need_is_behind_a_click(run: Run) -> None:
    assert pictures.find_difference(run.sidebar("advanced"), run.sidebar("closed")).mean() > 0.02


def test_blender_speaks_the_languages_of_the_table(run: Run) -> None:
    assert run.facts["languages"] == {
        "de": ["Qualität", "GSV3D-Backend installieren"],
        "zh": ["品质", "安装 GSV3D 后端"],
    }
    assert pictures.find_difference(run.narrow("de"), run.narrow("zh")).mean() > 0.01
    assert pictures.find_difference(run.narrow("de"), run.narrow("start")).mean() > 0.01


def test_the_search_finds_the_operators(run: Run) -> None:
    assert pictures.find_difference(run.view("search"), run.view("reference")).mean() > 0.02


def test_textures_are_shown_by_one_button(run: Run) -> None:
    assert run.facts["textures"] == "TEXTURE"


def test_progress_is_shown_and_moves(run: Run) -> None:
    bars = [run.bar(name) for name, _ in run.facts["job"]["shots"]]
    assert len(bars) >= 2
    assert max(bars) > min(bars) + 20, bars
    assert bars == sorted(bars), f"the bar went back: {bars}"
    words = [text for _, state, text in run.facts["job"]["seen"] if state == "running"]
    assert len(set(words)) >= 4, words
    assert any(re.search(r"\d+/\d+", text) for text in words), words
    assert any(" left" in text for text in words), words


def test_gaussians_come_early_and_replace_each_other_in_one_object(run: Run) -> None:
    seen = run.facts["job"]["gaussians"]
    assert len(seen) >= 2, f"only one set of Gaussians came: {seen}"
    assert len({uid for _, uid, _ in seen}) == 1
    last = run.facts["gaussians"]
    assert last["points"] == seen[-1][2] > 500
    assert last["name"].startswith(IMAGE.stem)
    assert "NODES" in last["modifiers"]


def test_gaussians_show_in_the_view(run: Run) -> None:
    shown = run.view("gaussians")
    changed = pictures.find_difference(shown, run.view("without_mesh"))
    assert changed.mean() > 0.02
    assert pictures.count_colors(shown[changed]) > 8, "Gaussians without their colors"
    assert pictures.find_difference(shown, run.view("ellipsoids")).mean() > 0.01


def test_splats_look_as_the_library_renders_them(run: Run) -> None:
    import torch

    from gsv3d.cameras import Cameras
    from gsv3d.gaussians import Gaussians
    from gsv3d.rendering import render

    camera = {name: np.array(matrix) for name, matrix in run.facts["camera"].items()}
    _, _, width, height = run.facts["view"]
    lens, axes = camera["lens"], np.diag([1.0, -1.0, -1.0, 1.0])
    K = np.array(
        [
            [lens[0, 0] * width / 2, 0, (1 - lens[0, 2]) * width / 2],
            [0, lens[1, 1] * height / 2, (1 + lens[1, 2]) * height / 2],
            [0, 0, 1],
        ]
    )
    viewmat = axes @ camera["view"] @ camera["object"]
    with np.load(FOLDER / "gaussians.npz") as stored:
        gaussians = Gaussians(
            means=torch.from_numpy(stored["position"]),
            quats=torch.from_numpy(stored["rotation"]),
            scales=torch.from_numpy(stored["scale"]),
            opacities=torch.from_numpy(stored["opacity"][:, 0]),
            sh=torch.from_numpy(stored["sh_0"][:, None]),
        )
    cameras = Cameras(*(torch.tensor(m[None]).float() for m in (viewmat, K)), width, height)
    drawn = render(gaussians, cameras)
    alpha = drawn.alpha[0].numpy()
    color = np.clip(drawn.color[0].numpy() / np.maximum(alpha, 1e-6), 0, 1)
    # Blender lays what add-ons draw over its view in light of exponent 2.2, which hides the view
    # transform from it.
    behind = pictures.crop(run.picture("without_mesh"), run.facts["view"]) / 255
    wanted = (alpha * color**2.2 + (1 - alpha) * behind**2.2) ** (1 / 2.2)
    rows, columns = np.nonzero(alpha[..., 0] > 0.01)
    box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    for name, close in (("gaussians", True), ("ellipsoids", False)):
        shown = pictures.crop(run.picture(name), run.facts["view"]) / 255
        pictures.save(FOLDER / f"compared_{name}.png", shown[box], wanted[box])
        # 51.9 dB measured for splats with software OpenGL, 26.3 for ellipsoids.
        assert (pictures.measure_psnr(shown[box], wanted[box]) > 45) == close, name


def test_the_mesh_is_complete(run: Run) -> None:
    mesh = run.facts["mesh"]
    assert mesh["name"].startswith(IMAGE.stem)
    assert 100 < mesh["triangles"] <= FACES
    assert len(mesh["uv_layers"]) == 1
    assert len(mesh["materials"]) == 1 and mesh["principled"] == 1
    assert [image[1:] for image in mesh["images"]] == [[1024, 1024, "sRGB"]]
    # It stands at the picture's lower edge, at the place and size of the object in the picture.
    from PIL import Image

    with Image.open(IMAGE) as image:
        left, top, right, bottom = image.getchannel("A").point(lambda a: 255 * (a > 25)).getbbox()
        unit = 1.2 / max(image.size)
        middle = ((left + right) / 2 - image.width / 2) * unit
    assert mesh["location"][0] == pytest.approx(middle, abs=0.02)
    assert mesh["location"][1] < 0 and mesh["location"][2] == pytest.approx(0.0, abs=1e-5)
    assert mesh["low"][2] == pytest.approx(0.0, abs=1e-4)
    assert mesh["high"][1] == pytest.approx(0.0, abs=0.1)
    assert mesh["high"][2] == pytest.approx((bottom - top) * unit, rel=0.15)


def test_the_mesh_shows_the_colors_of_its_texture(run: Run) -> None:
    without, flat = run.view("without_mesh"), run.view("flat_mesh")
    mask = pictures.find_difference(without, flat)
    assert mask.mean() > 0.02, "the mesh is not in view"
    texture = np.load(FOLDER / "texture.npy", allow_pickle=False).astype(np.uint8)
    shown = flat[mask]
    assert pictures.find_near(shown, texture, 14).mean() > 0.9
    # With one color, everything above would also hold for a mesh without its texture.
    assert pictures.count_colors(shown) > 8


def test_an_import_is_one_undo_step(run: Run) -> None:
    assert run.facts["undo"] == {"after_undo": 0, "after_redo": 1}


def test_cancel_ends_the_job_and_leaves_the_scene(run: Run) -> None:
    cancel = run.facts["cancel"]
    assert cancel["was"][0] == "running"
    assert cancel["became"][0] == "cancelled"
    assert set(cancel["before"]) <= set(cancel["after"])
    assert run.bar("before_cancel") > 0 == run.bar("cancelled")


def test_quitting_blender_ends_the_backend(run: Run) -> None:
    assert run.facts["finished"]
    lost = re.compile(r"-m backend|multiprocessing")
    assert not [line for line in run.leftovers if lost.search(line)]
