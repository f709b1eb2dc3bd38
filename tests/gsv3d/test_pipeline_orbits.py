# SPDX-License-Identifier: Apache-2.0
"""The cameras of the pipeline's views: the model's orbit, and lists of angles."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsv3d.cameras import orbit, static_azimuths_deg
from gsv3d.errors import ModelError
from gsv3d.multiview import pose_ids
from gsv3d.pipeline import GSV3DPipeline
from tests import tiny
from tests.gsv3d.test_pipeline import make_generator


def test_a_model_made_for_a_sine_orbit_makes_one(tmp_path) -> None:
    """Use the orbit saved with the model for poses, cameras and answers."""
    pipeline = tiny.tiny_pipeline()
    pipeline.register_to_config(orbit="sine")
    pipeline.save_pretrained(tmp_path)
    loaded = GSV3DPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    seen = []
    loaded.unet.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[3]))
    out = loaded(tiny.picture(), elevation=10.0, generator=make_generator(0), output_type="latent")
    assert out.elevations_deg == pytest.approx([40, 10, -20, 10])
    expected = pose_ids(static_azimuths_deg(4), [40.0, 10.0, -20.0, 10.0])[None]
    torch.testing.assert_close(seen[0], expected.to(seen[0]))
    level = tiny.tiny_pipeline()(tiny.picture(), generator=make_generator(0), output_type="latent")
    assert level.elevations_deg == [10.0] * 4
    assert not torch.allclose(level.gaussians.means.mean(0), out.gaussians.means.mean(0), atol=1e-4)


def test_the_views_stand_where_the_lists_say(pipeline: GSV3DPipeline) -> None:
    """Give UNet, decoder and answer the lists' angles, even for other numbers of views."""
    azimuths, elevations = (
        [10.0, 60.0, 200.0, 200.0, 340.0, 0.0],
        [5.0, 80.0, -90.0, 0.0, 7.0, 20.0],
    )
    seen, decoded = [], []
    hooks = [
        pipeline.unet.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[3])),
        pipeline.decoder.register_forward_pre_hook(lambda _, inputs: decoded.append(inputs[1])),
    ]
    try:
        out = pipeline(
            tiny.picture(), azimuths=azimuths, elevations=elevations, generator=make_generator(0),
            num_inference_steps=1,
        )  # fmt: skip
    finally:
        for hook in hooks:
            hook.remove()
    assert (out.azimuths_deg, out.elevations_deg) == (azimuths, elevations)
    assert out.views.shape == (6, 32, 32, 3)
    torch.testing.assert_close(seen[0], pose_ids(azimuths, elevations)[None])
    expected = orbit(azimuths, elevations, size=32)
    for cameras in (decoded[0], out.cameras):
        torch.testing.assert_close(cameras.viewmats, expected.viewmats)


def test_one_list_is_enough(pipeline: GSV3DPipeline) -> None:
    def angles(**arguments: object) -> tuple[list[float], list[float]]:
        out = pipeline(
            tiny.picture(), num_inference_steps=1, output_type="latent", **arguments
        )  # fmt: skip
        return out.azimuths_deg, out.elevations_deg

    assert angles(azimuths=[45, 0], elevation=3.0) == ([45.0, 0.0], [3.0, 3.0])
    assert angles(elevations=[0, 30, 20]) == ([120.0, 240.0, 0.0], [0.0, 30.0, 20.0])
    assert angles(num_frames=2) == ([180.0, 0.0], [10.0, 10.0])


def test_a_model_says_how_pictures_are_framed(tmp_path) -> None:
    """Keep the size in the world of an object that is seen from nearer."""
    from PIL import Image

    pipeline = tiny.tiny_pipeline()
    pipeline.register_to_config(framing=0.9)
    pipeline.save_pretrained(tmp_path)
    loaded = GSV3DPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    square = np.zeros((64, 64, 4), np.uint8)
    square[16:48, 16:48] = (200, 30, 30, 255)
    shown = [p.prepare_picture(Image.fromarray(square)) for p in (tiny.tiny_pipeline(), loaded)]
    widths = [float((picture[0, 3, 16] / 2 + 0.5).sum()) for picture in shown]
    assert widths == pytest.approx([0.75 * 32, 0.9 * 32], abs=0.2)
    out = loaded(tiny.picture(), output_type="latent", num_inference_steps=1)
    distances = out.cameras.positions.norm(dim=1)
    torch.testing.assert_close(distances, torch.full((4,), 2.35 * 0.75 / 0.9))


def test_a_model_that_is_not_told_the_poses_has_one_orbit() -> None:
    """Refuse other orbits for SV3D_u, whose UNet reads cond_aug alone."""
    whole = tiny.tiny_pipeline()
    config = dict(whole.unet.config) | {"projection_class_embeddings_input_dim": 16}
    parts = whole.components | {"unet": type(whole.unet).from_config(config)}
    unposed = GSV3DPipeline(**parts)
    unposed.set_progress_bar_config(disable=True)
    out = unposed(tiny.picture(), elevations=[5.0] * 3, num_inference_steps=1, output_type="latent")
    assert out.azimuths_deg == static_azimuths_deg(3)
    for angles in ({"azimuths": [90.0, 0.0]}, {"elevations": [20.0, 10.0]}):
        with pytest.raises(ModelError, match="not told where its views stand"):
            unposed(tiny.picture(), **angles)
