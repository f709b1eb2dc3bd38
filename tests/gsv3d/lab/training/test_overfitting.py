# SPDX-License-Identifier: Apache-2.0
"""The decoder and the multi-view model each overfit one prop.

The prop is ray traced in closed form, so that its unseen views are true to no renderer of ours.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gsv3d.lab.training.config import build
from gsv3d.lab.training.edm import sample_latents
from gsv3d.lab.training.geometry_loss import compare_renders
from gsv3d.lab.training.samples import Change, OrbitSamples, choose_views
from gsv3d.lab.training.sources import OrbitBatch, ViewSource
from gsv3d.lab.training.tasks import DecoderSettings, DecoderTask, MultiviewSettings, MultiviewTask
from gsv3d.lab.training.tasks.autoencoder import normalize_latents
from gsv3d.multiview.conditioning import Condition, embed_for_cross_attention, picture_tensor
from tests import tiny
from tests.gsv3d.lab.training.fitting import fit
from tests.gsv3d.lab.training.ray_traced import ellipsoid_orbit

CPU = torch.device("cpu")


def with_novel(samples: OrbitSamples, chosen: list[int]) -> OrbitSamples:
    """Return the samples with some of their novel views."""
    return replace(
        samples,
        novel_rgba=samples.novel_rgba[:, chosen],
        novel_depth=samples.novel_depth[:, chosen],
        novel_viewmats=samples.novel_viewmats[:, chosen],
    )


@pytest.mark.slow
def test_the_decoder_overfits_one_prop_to_30_db_at_views_it_never_saw() -> None:
    """Four views in, 20 to learn from, 8 to measure on; some 32 dB in 300 steps."""
    rng = np.random.default_rng(0)
    bank = tiny.bank_of(ellipsoid_orbit(novel=24))
    views = choose_views(bank[0], 4, 28, rng, mirrored=False)
    sample = ViewSource(bank, 4, 28).draft([0], [views], [Change()]).made()
    seen, unseen = list(range(20)), list(range(20, 28))
    torch.manual_seed(0)
    wider = tiny.CONFIG.components["decoder"] | {"dim": 64, "scale_max": 0.08}
    config = replace(tiny.CONFIG, components=tiny.CONFIG.components | {"decoder": wider})
    settings = DecoderSettings(corruption=0.0, blur=0.0, pixel_weight=0.1)
    task = DecoderTask(tiny.setup(bank, settings, config))

    def loss() -> torch.Tensor:
        chosen = rng.choice(seen, 3, replace=False).tolist()
        return task.loss(with_novel(sample, chosen))[0]

    fit(task.modules, loss, steps=300, rate=4e-3)
    test = with_novel(sample, unseen)
    with torch.no_grad():
        pictures, latents = task.encode(test)
        decoded = task.decode(latents, pictures, test.cameras())
    truth, drawn = compare_renders(decoded, test)
    errors = (truth - drawn).pow(2).mean(dim=(1, 2, 3))
    psnr = -10 * torch.log10(errors[4:]).mean()
    assert float(psnr) > 30
    # An empty picture is 10 dB away: the prop is there.
    empty = -10 * torch.log10((truth[4:] - 1).pow(2).mean())
    assert float(empty) < 20.5


@pytest.mark.slow
def test_the_multiview_model_overfits_one_orbit() -> None:
    """Views drawn from noise are the orbit's but for a twentieth of the latents' variance."""
    torch.manual_seed(0)
    bank = tiny.bank_of(ellipsoid_orbit(novel=0))
    pictures = bank.pictures(torch.tensor([0]), torch.arange(8)[None])[0]
    vae = build(tiny.CONFIG, "vae").eval()
    with torch.no_grad():
        modes = vae.encode(picture_tensor(pictures, 4)).latent_dist.mode()
        normalize_latents(vae, modes.mean(dim=(0, 2, 3)), modes.std(dim=(0, 2, 3)))
    settings = MultiviewSettings(drop_condition=0.0, log_sigma_mean=0.5)
    task = MultiviewTask(tiny.setup(bank, settings, vae=vae))
    one = task.source.draw(1, 0, 0.0)
    latents = task.encode(one)
    batch = OrbitBatch(
        reference=one.reference.expand(4, -1, -1, -1),
        pose=one.pose.expand(4, -1, -1),
        latents=latents.expand(4, -1, -1, -1, -1),
        mirror_azimuth=one.mirror_azimuth.expand(4),
        log_depth=one.log_depth.expand(4),
    )
    fit(task.modules, lambda: task.loss(batch)[0], steps=150, rate=4e-3)
    with torch.no_grad():
        context = embed_for_cross_attention(task.modules["image_encoder"], one.reference)
    torch.manual_seed(5)
    condition = Condition(latents[:, -1], context)
    drawn = sample_latents(task.modules["unet"], one.pose, condition, task.sigmas)
    left = (drawn - latents).pow(2).mean(dim=(0, 2, 3, 4)) / latents.var()
    assert float(left.mean()) < 0.1
    # Frames are not swapped: each is nearest to its own truth.
    distances = torch.stack(
        [(drawn[0, i] - latents[0]).pow(2).mean(dim=(1, 2, 3)) for i in range(4)]
    )
    assert distances.argmin(dim=1).tolist() == [0, 1, 2, 3]
