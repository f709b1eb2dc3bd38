# SPDX-License-Identifier: Apache-2.0
"""Answers for an evaluation, by the smallest pipeline of the real classes."""

from __future__ import annotations

import mmap
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gsv3d.cameras import look_at_origin, orbit
from gsv3d.errors import ModelError
from gsv3d.gaussians import Gaussians
from gsv3d.generation import GenerationResult
from gsv3d.lab.evaluation.gaussians import (
    find_solid_centers,
    normalize_gaussians,
    render_generated,
    render_views,
)
from gsv3d.lab.evaluation.generating import (
    Generated,
    ModelGenerator,
    PeakMemory,
    count_frames,
    decode_halves,
    find_masks,
    read_peak_of_life,
)
from gsv3d.lab.evaluation.protocol import Framing, find_framing, list_unseen_views
from gsv3d.lab.evaluation.store import ModelIdentity
from gsv3d.meshing.mesh import TexturedMesh
from gsv3d.multiview.conditioning import embed_for_decoder
from gsv3d.pose import PoseEstimate
from tests import tiny
from tests.gsv3d.fake_pipeline import FakePipeline, make_ball
from tests.gsv3d.lab.evaluation.answers import box


@pytest.fixture(scope="module")
def pipeline():
    return tiny.tiny_pipeline()


@pytest.fixture(scope="module")
def result(pipeline) -> GenerationResult:
    """Generate without a mesh, since random weights give none."""
    output = pipeline(tiny.picture(), elevation=10.0, generator=torch.Generator().manual_seed(0))
    views = (np.asarray(output.views) * 255).round().astype(np.uint8)
    prepared = np.asarray(tiny.picture())
    return GenerationResult(
        prepared, views, np.float32(output.azimuths_deg), np.float32(output.elevations_deg),
        output.gaussians, None, {}, PoseEstimate(10.0, None), output.latents,
    )  # fmt: skip


def test_masks_are_the_models_own_and_the_references(pipeline, result) -> None:
    masks = find_masks(pipeline, result)
    assert masks.shape == result.views.shape[:3] and masks.dtype == bool
    np.testing.assert_array_equal(masks[-1], result.prepared[..., 3] > 127)
    scaled = result.latents / pipeline.vae.config.scaling_factor
    with torch.no_grad():
        alpha = pipeline.vae.decode(scaled).sample[:, 3]
    np.testing.assert_array_equal(masks[:-1], (alpha[:-1] > 0).numpy())


def test_without_alpha_what_is_not_white_is_the_object(pipeline, result) -> None:
    views = np.full((2, 8, 8, 3), 255, np.uint8)
    views[:, 2:4, 2:4] = [255, 255, 100]
    prepared = np.zeros((8, 8, 4), np.uint8)
    prepared[4:6, 4:6] = 255
    masks = find_masks(pipeline, replace(result, views=views, latents=None, prepared=prepared))
    assert masks[0, 2:4, 2:4].all() and masks[1, 4:6, 4:6].all() and masks.sum() == 8


@pytest.mark.parametrize("elevations", [[10, 10, 10, 10], [40, 10, -20, 10]])
def test_halves_are_decoded_from_every_other_view_where_it_stands(
    pipeline, result, elevations: list[int]
) -> None:
    placed = replace(result, elevations_deg=np.float32(elevations))
    first, second = decode_halves(pipeline, placed)
    assert isinstance(first, Gaussians) and len(first) and len(second)
    # Four views: 0, 2 and the reference; 1 and the reference.
    grid = pipeline.decoder.gaussian_grid
    assert len(first) <= 3 * grid**2 and len(second) <= 2 * grid**2
    cameras = orbit(result.azimuths_deg, placed.elevations_deg, size=pipeline.image_size)
    with torch.no_grad():
        features = embed_for_decoder(
            pipeline.feature_encoder, pipeline.prepare_picture(result.prepared)
        )
        expected = pipeline.decoder(result.latents[None, [1, 3]], cameras[[1, 3]], features)[0]
    torch.testing.assert_close(second.means, expected.means[expected.opacities > 0.005])


def test_too_few_views_have_no_halves(pipeline, result) -> None:
    assert decode_halves(pipeline, replace(result, latents=result.latents[:3])) is None
    assert decode_halves(pipeline, replace(result, latents=None)) is None
    assert decode_halves(SimpleNamespace(decoder=None), result) is None


@pytest.mark.parametrize(
    ("own", "asked", "framing", "expected"),
    [
        ("static", None, 0.75, 4), ("sine", None, 0.75, None), ("static", None, 0.9, None),
        ("static", "dynamic", 0.75, None), ("sine", "static", 0.75, 4),
    ],
)  # fmt: skip
def test_views_of_another_orbit_are_compared_with_nothing(
    tmp_path: Path, own: str, asked: str | None, framing: float, expected: int | None
) -> None:
    """The true objects' orbits are static, and framed as pictures are by default."""
    pipeline = tiny.tiny_pipeline()
    pipeline.register_to_config(orbit=own, framing=framing)
    pipeline.save_pretrained(tmp_path)
    assert count_frames(str(tmp_path), asked) == expected
    for frames, found in ((None, expected), (6, expected and 6)):
        identity = ModelIdentity("abc", frames=frames, orbit=asked)
        assert ModelGenerator(str(tmp_path), identity).frames == found


@pytest.mark.parametrize(
    "pose, plane, elevation, pictures",
    [("elevation", 30.0, 17.0, 1), ("truth", 30.0, 17.0, 2), ("truth", None, 17.0, 1),
     ("off", 30.0, 10.0, 1), ("auto", 30.0, 33.0, 2)],
)  # fmt: skip
def test_a_model_is_asked_through_the_same_job_as_everywhere(
    monkeypatch, pose: str, plane: float | None, elevation: float, pictures: int
) -> None:
    fake = FakePipeline()
    fake.vae = type("V", (), {"config": type("C", (), {"in_channels": 3})})()
    fake.num_frames = 4
    monkeypatch.setattr("gsv3d.models.load_pipeline", lambda model, device: fake)
    monkeypatch.setattr("gsv3d.lab.evaluation.generating.decode_halves", lambda *_: None)
    asked = []

    def mesh(
        _: Gaussians,
        faces: int,
        texture_size: int,
        __: object,
        references: list,
        *___: object,
        shape: object,
    ) -> TexturedMesh:
        asked.append((faces, texture_size, len(references)))
        return box((1, 1, 1), (9, 9, 9))

    monkeypatch.setattr("gsv3d.generation.extract_mesh", mesh)
    found = PoseEstimate(33.0, 60.0, 5.0, 0.9)
    monkeypatch.setattr("gsv3d.generation.estimate_pose", lambda _: found)
    identity = ModelIdentity("abc", steps=3, faces=400, pose=pose)
    generator = ModelGenerator("blockout", identity, "cpu")
    assert generator.frames == count_frames("blockout") > 1
    reference = np.zeros((64, 64, 4), np.uint8)
    reference[16:48, 16:48] = [200, 40, 40, 255]
    answer = generator(reference, 17.0, plane, 5)
    assert fake.calls == [{"elevation": elevation, "steps": 3}]
    assert asked == [(400, 512, pictures)] and len(answer.mesh.faces) == 12
    assert answer.seconds["total"] > 0 and answer.pose.elevation_deg == elevation
    assert answer.process_mib > 50 and len(answer.gaussians) > 100
    assert answer.frames.shape == (4, 32, 32, 3) and answer.frame_masks.shape == (4, 32, 32)


def test_bad_settings_and_models_are_named_at_once(tmp_path) -> None:
    with pytest.raises(ValueError, match="steps"):
        ModelGenerator("blockout", ModelIdentity("abc", steps=0))
    with pytest.raises(ModelError, match="no-such"):
        ModelGenerator("no-such", ModelIdentity("abc"))


def test_gaussians_are_drawn_where_the_object_is() -> None:
    """A ball as a model would give it: framed at the reference, drawn in the object's world."""
    true = make_ball((0.8, 0.2, 0.2), radius=0.45)
    framing = find_framing(true.means.numpy(), look_at_origin(0, 10.0, 2.35))
    own = replace(
        true,
        means=true.means * framing.scale + torch.from_numpy(framing.shift).float(),
        scales=true.scales * framing.scale,
    )
    back = normalize_gaussians(own, framing)
    torch.testing.assert_close(back.means, true.means)
    torch.testing.assert_close(back.scales, true.scales)
    frames = np.full((4, 16, 16, 3), 255, np.uint8)
    masks = np.zeros((4, 16, 16), bool)
    generated = Generated(None, frames=frames, frame_masks=masks, gaussians=own, halves=(own, own))
    arrays = render_generated(generated, framing, 10.0, 48)
    views = len(list_unseen_views(10.0)[0])
    assert arrays["gaussian_views"].shape == (views, 48, 48, 3)
    np.testing.assert_array_equal(arrays["half0_views"], arrays["gaussian_views"])
    # At the frames' cameras the reference is framed: centered, three quarters of the picture.
    seen = arrays["gaussian_frames_mask"][-1]
    rows = np.flatnonzero(seen.any(axis=1))
    assert rows[0] + rows[-1] == pytest.approx(47, abs=1.01)
    # Centers fill three quarters; what stands out are two deviations of the outermost.
    assert len(rows) / 48 == pytest.approx(0.75 * (0.45 + 2 * 0.016) / 0.45, abs=0.05)
    assert arrays["half1_centers"].shape == (1500, 3)
    without = render_generated(Generated(None), Framing(1.0, np.zeros(3)), 10.0, 16)
    assert without == {}


def test_gaussians_are_drawn_beside_the_views_at_the_elevation_they_were_made_for() -> None:
    """A bar that leans is another picture from 25 degrees, where the pose said the views are."""
    leaning = make_ball((1, 0, 0), radius=0.4)
    leaning = replace(leaning, means=leaning.means * torch.tensor([0.2, 1.0, 0.2]))
    frames, masks = np.full((4, 48, 48, 3), 255, np.uint8), np.zeros((4, 48, 48), bool)
    generated = Generated(
        None, frames=frames, frame_masks=masks, gaussians=leaning, pose=PoseEstimate(25.0, None)
    )
    arrays = render_generated(generated, Framing(1.0, np.zeros(3)), 5.0, 48)
    expected = render_views(leaning, orbit([90, 180, 270, 0], 25.0, size=48))
    np.testing.assert_array_equal(arrays["gaussian_frames"], expected[0])
    np.testing.assert_array_equal(arrays["gaussian_frames_mask"], expected[1])
    assert (render_views(leaning, orbit([90, 180, 270, 0], 5.0, size=48))[0] != expected[0]).any()


def test_faint_gaussians_are_no_surface() -> None:
    true = make_ball((1, 0, 0))
    opacities = true.opacities.clone()
    opacities[100:] = 0.2
    assert len(find_solid_centers(replace(true, opacities=opacities))) == 100
    assert len(find_solid_centers(replace(true, opacities=opacities * 0))) == 1500


def touch(size: int) -> None:
    """Hold memory for a moment, from the system itself: malloc may have kept some to give."""
    with mmap.mmap(-1, size) as block:
        block[:: mmap.PAGESIZE] = b"x" * (size // mmap.PAGESIZE)


def test_the_peak_holds_what_was_there_for_a_moment() -> None:
    memory = PeakMemory()
    memory.start()
    before = memory.process_mib()
    touch(96 * 2**20)
    assert memory.process_mib() > before + 60
    assert read_peak_of_life() / 2**20 >= memory.process_mib() - 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets earlier peaks")
def test_earlier_peaks_are_forgotten() -> None:
    PeakMemory().start()
    touch(128 * 2**20)
    high = PeakMemory().process_mib()
    memory = PeakMemory()
    memory.start()
    assert memory.process_mib() < high - 60
