# SPDX-License-Identifier: Apache-2.0
"""The job that makes a mesh of a picture: its order, previews, stops and refusals."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gsv3d import generation
from gsv3d.cameras import DISTANCE, mirrored_azimuth_deg, orbit
from gsv3d.errors import Cancelled, GSV3DError, ImageError
from gsv3d.generation import PHASES, choose_pose, choose_preview_steps, generate, list_phases
from gsv3d.lifting.settings import OF_A_MODEL, REFINING
from gsv3d.pose import PoseEstimate
from gsv3d.settings import GenerationSettings
from tests.gsv3d.fake_pipeline import FakePipeline, draw_picture

SMALL = {"faces": 100, "texture_size": 32}


class Recorder:
    def __init__(self, cancel_at: tuple[str, int] | None = None) -> None:
        self.events: list[tuple[Any, ...]] = []
        self._cancel_at = cancel_at

    def progress(self, phase: str, step: int, of: int) -> None:
        self.events.append(("progress", phase, step, of))
        if (phase, step) == self._cancel_at:
            raise Cancelled

    def prepared(self, picture: Any) -> None:
        self.events.append(("prepared", picture.box))

    def views(self, images: np.ndarray, azimuths_deg: np.ndarray) -> None:
        assert images.dtype == np.uint8 and images.shape == (4, 32, 32, 3)
        assert azimuths_deg.dtype == np.float32 and azimuths_deg.tolist() == [90, 180, 270, 0]
        self.events.append(("views",))

    def gaussians(self, gaussians: Any, step: int, of: int, final: bool) -> None:
        self.events.append(("gaussians", step, of, final, len(gaussians)))

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [event for event in self.events if event[0] == kind]


@pytest.fixture(scope="module")
def whole():
    pipeline, recorder = FakePipeline(), Recorder()
    settings = GenerationSettings(previews=3, seed=5, elevation=20.0, **SMALL)
    return generate(pipeline, draw_picture(), settings, recorder), recorder, pipeline


def test_the_phases_come_in_order_and_end(whole):
    _, recorder, pipeline = whole
    phases = list_phases(pipeline, GenerationSettings())
    assert phases == tuple(name for name in PHASES if name != "fitting")
    check_phases(recorder, phases)


def check_phases(recorder: Recorder, phases: tuple[str, ...]) -> None:
    progress = recorder.of("progress")
    assert tuple(dict.fromkeys(phase for _, phase, _, _ in progress)) == phases
    for phase in phases:
        steps = [(step, of) for _, name, step, of in progress if name == phase]
        assert [s for s, _ in steps] == sorted(s for s, _ in steps)
        assert steps[-1][0] == steps[-1][1]


def test_where_the_picture_shows_the_object_is_told_before_the_first_preview(whole):
    _, recorder, _ = whole
    ((_, box),) = recorder.of("prepared")
    assert box == pytest.approx((10 / 64, 8 / 48, 51 / 64, 41 / 48))  # of the ellipse
    kinds = [event[0] for event in recorder.events]
    assert kinds.index("prepared") < min(kinds.index("views"), kinds.index("gaussians"))


def test_previews_come_evenly_and_the_final_ones_last(whole):
    _, recorder, _ = whole
    assert [event[1:4] for event in recorder.of("gaussians")] == [
        (2, 8, False), (4, 8, False), (6, 8, False), (8, 8, True),
    ]  # fmt: skip
    assert len(recorder.of("views")) == 4
    mesh_starts = recorder.events.index(("progress", "fusing", 1, 76))
    assert max(i for i, e in enumerate(recorder.events) if e[0] == "gaussians") < mesh_starts


def test_the_result_is_complete(whole):
    result, _, pipeline = whole
    assert result.prepared.shape == (32, 32, 4)
    assert result.views.shape == (4, 32, 32, 3) and result.views.dtype == np.uint8
    assert 4 <= len(result.mesh.faces) <= 100
    np.testing.assert_allclose(
        np.median(result.mesh.texture.reshape(-1, 3), axis=0), [200, 80, 40], atol=3
    )
    assert list(result.timings) == [*PHASES, "total"]
    parts = sum(seconds for name, seconds in result.timings.items() if name != "total")
    assert parts == pytest.approx(result.timings["total"], abs=0.05)
    assert pipeline.calls == [{"elevation": 20.0, "steps": None}]


@pytest.mark.parametrize(
    ("elevation", "mirror", "expected"),
    [
        (None, "auto", PoseEstimate(33.0, 60.0, 5.0, 0.9, 1.5, 0.2)),
        (None, "off", PoseEstimate(33.0, None, 5.0, None, 1.5, 0.2)),
        (20.0, "auto", PoseEstimate(20.0, 60.0, None, 0.9, 1.5, 0.2)),
        (0, -30, PoseEstimate(0.0, 150.0, None, None, 1.5, 0.2)),
        (None, 200.0, PoseEstimate(33.0, 20.0, 5.0, None, 1.5, 0.2)),
    ],
)
def test_what_the_user_knows_goes_before_estimates(monkeypatch, elevation, mirror, expected):
    found = PoseEstimate(33.0, 60.0, 5.0, 0.9, 1.5, 0.2)
    monkeypatch.setattr("gsv3d.generation.estimate_pose", lambda rgba: found)
    settings = GenerationSettings(elevation=elevation, mirror=mirror)
    assert choose_pose(settings, np.zeros((96, 96, 4), np.uint8)) == expected


def test_the_mirrored_picture_is_a_second_reference(monkeypatch):
    seen = []

    def extract(gaussians, faces, texture_size, progress, references, backs, shape):
        assert shape is None
        seen.extend(references)
        raise GSV3DError("enough")

    monkeypatch.setattr("gsv3d.generation.extract_mesh", extract)
    settings = GenerationSettings(previews=0, elevation=20.0, mirror=30.0, **SMALL)
    with pytest.raises(GSV3DError, match="enough"):
        generate(FakePipeline(), draw_picture(), settings)
    first, second = seen
    np.testing.assert_array_equal(second.rgba, first.rgba[:, ::-1])
    expected = orbit([0.0, mirrored_azimuth_deg(30.0)], 20.0, size=8).positions
    np.testing.assert_allclose(first.camera.positions[0], expected[0], atol=1e-5)
    np.testing.assert_allclose(second.camera.positions[0], expected[1], atol=1e-5)


@pytest.mark.parametrize(("mirror", "sure"), [(30.0, True), ("off", True), (30.0, False)])
def test_the_models_prior_for_shapes_reaches_the_mesh(monkeypatch, mirror, sure):
    """Place it before the canonical camera, also of a model whose pictures are framed larger."""
    seen = []

    def estimate(rgba: np.ndarray) -> np.ndarray:
        logits = np.full((32, 32, 32), -9.0, np.float32)
        logits[8:24, 8:24, :16] = 3.0 if sure else -0.5
        return logits

    def extract(gaussians, faces, texture_size, progress, references, backs, shape):
        seen.append(shape)
        raise GSV3DError("enough")

    monkeypatch.setattr("gsv3d.generation.extract_mesh", extract)
    monkeypatch.setattr("gsv3d.generation.estimate_shape", estimate)
    fake = FakePipeline()
    fake.config = SimpleNamespace(orbit="static", framing=0.9, shape_prior=1.5)
    fake.camera_distance = 0.9 * DISTANCE
    settings = GenerationSettings(previews=0, elevation=20.0, mirror=mirror, **SMALL)
    with pytest.raises(GSV3DError, match="enough"):
        generate(fake, draw_picture(), settings)
    (shape,) = seen
    if not sure:
        assert shape is None
        return
    assert shape.weight == 1.5
    azimuths = [0.0] if mirror == "off" else [0.0, mirrored_azimuth_deg(30.0)]
    expected = orbit(azimuths, 20.0, size=8).positions
    assert len(shape.views) == len(azimuths)
    for (logits, camera), position in zip(shape.views, expected, strict=True):
        np.testing.assert_allclose(camera.positions[0], position, atol=1e-5)
        assert logits.max() == 3


@pytest.mark.parametrize(
    ("phase", "step"), [("denoising", 3), ("fitting", 3), ("fusing", 2), ("preparing", 0)]
)
def test_cancelling_stops_at_once(short_fits, phase, step):
    pipeline = FakePipeline(decoder=None if phase == "fitting" else "its own")
    recorder = Recorder(cancel_at=(phase, step))
    with pytest.raises(Cancelled):
        generate(pipeline, draw_picture(), GenerationSettings(previews=0, **SMALL), recorder)
    assert recorder.events[-1][1:3] == (phase, step)
    if phase == "denoising":
        assert pipeline.steps_done == step


def test_unusable_gaussians_are_dropped_before_anyone_sees_them():
    def spoil(gaussians):
        gaussians.means[0] = float("nan")
        gaussians.sh[1] = float("inf")
        gaussians.opacities[2] = 0.004
        return gaussians

    recorder = Recorder(cancel_at=("decoding", 1))
    with pytest.raises(Cancelled):
        generate(FakePipeline(spoil=spoil), draw_picture(), GenerationSettings(**SMALL), recorder)
    assert {event[4] for event in recorder.of("gaussians")} == {1497}


@pytest.mark.parametrize("refine", [False, True])
def test_a_model_that_gives_nothing_is_said_in_words(refine):
    def spoil(gaussians):
        gaussians.opacities[:] = 0
        return gaussians

    recorder = Recorder()
    settings = GenerationSettings(refine=refine, **SMALL)
    with pytest.raises(GSV3DError, match="no visible Gaussians"):
        generate(FakePipeline(spoil=spoil), draw_picture(), settings, recorder)
    assert not recorder.of("gaussians")


@pytest.fixture
def short_fits(monkeypatch):
    for name, settings in (("OF_A_MODEL", OF_A_MODEL), ("REFINING", REFINING)):
        stages = ((16, 8), (32, 12))
        few = replace(settings, count=250, most=300, stages=stages, densify_every=5)
        monkeypatch.setattr(f"gsv3d.lifting.model_views.{name}", few)


def test_views_without_a_decoder_are_lifted_by_a_fit(short_fits):
    pipeline, recorder = FakePipeline(decoder=None), Recorder()
    settings = GenerationSettings(previews=3, seed=5, elevation=20.0, **SMALL)
    result = generate(pipeline, draw_picture(), settings, recorder)
    assert result.made_by == "fit" and result.timings["fitting"] > 0
    assert list_phases(pipeline, settings) == PHASES
    check_phases(recorder, PHASES)
    steps = [event[2:] for event in recorder.of("progress") if event[1] == "fitting"]
    assert steps == [(step, 20) for step in range(21)]
    shown = recorder.of("gaussians")
    assert [event[1:4] for event in shown] == [
        (5, 20, False), (10, 20, False), (15, 20, False), (20, 20, True),
    ]  # fmt: skip
    assert 200 < shown[0][4] and shown[-1][4] == len(result.gaussians)
    # The final views come before, not after, the fit.
    kinds = [event[0] for event in recorder.events]
    assert len(kinds) - kinds[::-1].index("views") < kinds.index("gaussians")
    # It is the ball that the views show, where they show it.
    radii = result.gaussians.means.norm(dim=1)
    assert 0.27 < radii.median() < 0.42
    middle = result.gaussians.filter(result.gaussians.opacities > 0.5).rgb().median(dim=0).values
    np.testing.assert_allclose(middle, np.array([200, 80, 40]) / 255, atol=0.1)


def test_a_decoders_gaussians_are_refined_when_asked(short_fits):
    def spoil(gaussians):
        return replace(gaussians, means=gaussians.means * 1.15)

    found = {}
    for refine in (False, True):
        settings = GenerationSettings(previews=0, elevation=20.0, refine=refine, **SMALL)
        found[refine] = generate(FakePipeline(spoil=spoil), draw_picture(), settings)
    assert (found[False].made_by, found[True].made_by) == ("decoder", "decoder and fit")
    before, after = (
        result.gaussians.filter(result.gaussians.opacities > 0.5).means.norm(dim=1).median()
        for result in found.values()
    )
    assert before == pytest.approx(0.35 * 1.15, abs=1e-3) and after < before - 0.01


def test_a_picture_without_an_object_never_reaches_the_model():
    pipeline = FakePipeline()
    with pytest.raises(ImageError):
        generate(pipeline, Image.new("RGBA", (64, 64)), GenerationSettings(**SMALL))
    assert not pipeline.calls


@pytest.mark.parametrize(("decoder", "last"), [("its own", "decoding"), (None, "fusing")])
def test_the_seed_decides_the_gaussians(short_fits, decoder, last):
    def make(seed: int) -> torch.Tensor:
        recorder, seen = Recorder(cancel_at=(last, 1)), []
        recorder.gaussians = lambda gaussians, *_: seen.append(gaussians)
        with pytest.raises(Cancelled):
            settings = GenerationSettings(seed=seed, previews=0, elevation=20.0, **SMALL)
            generate(FakePipeline(decoder=decoder), draw_picture(), settings, recorder)
        return torch.cat([seen[0].means, seen[0].rgb()], dim=1)

    first, again, other = make(1), make(1), make(2)
    assert torch.equal(first, again) and not torch.equal(first[:10], other[:10])


@given(steps=st.integers(1, 60), previews=st.integers(0, 60))
def test_previews_never_fall_on_the_last_step(steps, previews):
    chosen = choose_preview_steps(steps, previews)
    assert len(chosen) <= previews
    assert all(0 <= step < steps - 1 for step in chosen)
    if previews < steps // 2:
        assert len(chosen) == previews
        gaps = np.diff(sorted({-1, *chosen, steps - 1}))
        assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0), ("steps", 201), ("steps", 2.5), ("steps", True),
        ("seed", -1), ("seed", 2**31), ("seed", "1"),
        ("faces", 3), ("faces", 10**9), ("texture_size", 8), ("texture_size", 16384),
        ("elevation", 91.0), ("elevation", float("nan")), ("elevation", "up"),
        ("mirror", 361.0), ("mirror", float("inf")), ("mirror", "on"), ("mirror", None),
        ("previews", -1), ("previews", 51), ("backs", "front"), ("refine", 1),
    ],
)  # fmt: skip
def test_settings_name_the_field_and_its_bounds(field, value):
    with pytest.raises(ValueError, match=f"{field} must be"):
        GenerationSettings(**{field: value})


@pytest.mark.parametrize(
    ("fields", "azimuths", "elevations"),
    [
        ({}, [90, 180, 270, 0], [10] * 4),
        ({"frames": 2}, [180, 0], [10, 10]),
        ({"orbit": "sine"}, [90, 180, 270, 0], [40, 10, -20, 10]),
        ({"elevations": (-5, 40, 10)}, [120, 240, 0], [-5, 40, 10]),
        ({"azimuths": (30, 60, 0)}, [30, 60, 0], [10] * 3),
        ({"azimuths": (30, 0), "elevations": (9, 10)}, [30, 0], [9, 10]),
    ],
)
def test_angles_and_numbers_of_views_become_an_orbit(
    fields: dict, azimuths: list, elevations: list
) -> None:
    found = GenerationSettings(**fields).views("static", 4, 10.0)
    assert found == (pytest.approx(azimuths), pytest.approx(elevations))


def test_a_dynamic_orbit_is_drawn_by_the_seed() -> None:
    first, again, other = (
        GenerationSettings(orbit="dynamic", seed=seed).views("static", 6, 12.0)
        for seed in (1, 1, 2)
    )
    assert first == again != other
    assert len(first[0]) == 6 and first[1][-1] == other[1][-1] == 12


def test_the_last_elevation_is_the_pictures() -> None:
    estimated = GenerationSettings(azimuths=(90, 0))
    assert estimated.known_elevation is None
    listed = GenerationSettings(elevations=(40, 0), mirror="off")
    assert choose_pose(listed, np.zeros((96, 96, 4), np.uint8)).elevation_deg == 0


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"orbit": "spiral"}, "orbit must be static or sine or dynamic, not 'spiral'"),
        ({"elevations": (5, 0), "elevation": 9.0}, "picture's own, 9 degrees, not 0"),
        ({"azimuths": (90, 0), "orbit": "sine"}, "or an orbit and its number of views"),
    ],
)
def test_bad_orbits_are_refused(fields: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GenerationSettings(**fields)


def test_pictures_are_framed_as_the_model_wants(monkeypatch) -> None:
    """Keep the usual framing for the pose network, which was trained on it."""
    fake, seen = FakePipeline(), {}
    fake.config = SimpleNamespace(orbit="static", framing=0.9, shape_prior=0.0)
    fake.camera_distance = 2.0

    def pose(rgba: np.ndarray) -> PoseEstimate:
        seen["pose"] = measure_width(rgba)
        return PoseEstimate(10.0, None)

    def mesh(*arguments: Any, shape: Any) -> Any:
        seen["reference"] = arguments[4][0]
        return "a mesh"

    monkeypatch.setattr(generation, "estimate_pose", pose)
    monkeypatch.setattr(generation, "extract_mesh", mesh)
    result = generate(fake, draw_picture(), GenerationSettings(mirror="off"))
    assert measure_width(result.prepared) == pytest.approx(0.9, abs=0.04)
    assert measure_width(seen["reference"].rgba) == pytest.approx(0.9, abs=0.01)
    assert seen["pose"] == pytest.approx(0.75, abs=0.03)
    expected = orbit([0.0], [10.0], size=768, distance=2.0)
    torch.testing.assert_close(seen["reference"].camera.viewmats, expected.viewmats)
    assert result.distance == 2.0


def measure_width(rgba: np.ndarray) -> float:
    """Return the share of a picture's width that the object fills."""
    return (rgba[..., 3] > 127).any(axis=0).sum() / len(rgba)
