# SPDX-License-Identifier: Apache-2.0
"""EDM's form against closed forms: preconditioning, weights, and the sampler on a Gaussian."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler
from torch import nn

from gsv3d.lab.training.edm import (
    NoiseLevels,
    denoise,
    estimate,
    karras_sigmas,
    sample_latents,
)
from gsv3d.multiview.conditioning import Condition

POSE = torch.zeros(2, 3, 3)


class PerfectUNet(nn.Module):
    """Return the best v where latents are N(0, 0.5^2): c_in x in, E[v | x] out."""

    dtype = torch.float32

    def forward(self, inputs, timestep, context, pose, hints):
        self.inputs, self.timestep = inputs, timestep
        sigma = (4 * timestep).exp()[:, None, None, None, None]
        channels = inputs.shape[2] // 2
        noisy = inputs[:, :, :channels] * (sigma**2 + 1).sqrt()
        mean = noisy * 0.25 / (0.25 + sigma**2)
        v = (noisy / (sigma**2 + 1) - mean) * (sigma**2 + 1).sqrt() / sigma
        return SimpleNamespace(sample=v)


def test_the_estimate_undoes_the_definition_of_v() -> None:
    """v = (noise - sigma z) / sqrt(sigma^2 + 1)."""
    latents, noise = torch.randn(2, 2, 3, 4, 5, 5).unbind(0)
    sigma = torch.tensor([0.05, 7.0])
    wide = sigma[:, None, None, None, None]
    v = (noise - wide * latents) / (wide**2 + 1).sqrt()
    noisy = latents + wide * noise
    assert torch.allclose(estimate(noisy, v, sigma), latents, atol=1e-4)
    squared = NoiseLevels(0.7, 1.6, 0.3).squared(estimate(noisy, v + 0.3, sigma), latents, sigma)
    # An error of 0.3 in v costs 0.09 at every noise level: unit weight.
    assert torch.allclose(squared, torch.full((2, 3), 0.09), rtol=1e-3)


def test_the_network_reads_what_svd_reads() -> None:
    unet = PerfectUNet()
    sigma = torch.tensor([0.5, 3.0])
    noisy, reference = torch.randn(2, 3, 4, 5, 5), torch.randn(2, 4, 5, 5)
    denoise(unet, noisy, sigma, POSE, Condition(reference, torch.zeros(2, 1, 8)))
    assert torch.allclose(unet.timestep, 0.25 * sigma.log())
    scaled = noisy / (sigma**2 + 1).sqrt()[:, None, None, None, None]
    assert torch.allclose(unet.inputs[:, :, :4], scaled)
    assert torch.equal(unet.inputs[:, 2, 4:], reference)


def test_noise_levels_are_log_normal_and_frames_near_the_reference_count_less() -> None:
    torch.manual_seed(0)
    logs = NoiseLevels(0.7, 1.6, 0.3).draw(20000).log()
    assert float(logs.mean()) == pytest.approx(0.7, abs=0.05)
    assert float(logs.std()) == pytest.approx(1.6, abs=0.05)
    pose = torch.zeros(1, 4, 3)
    pose[0, :, 2] = torch.tensor([90.0, 180.0, 270.0, 0.0]).deg2rad()
    weights = NoiseLevels(0.7, 1.6, 0.3).frame_weights(pose)[0]
    assert float(weights.mean()) == pytest.approx(1.0)
    assert float(weights[3] / weights[1]) == pytest.approx(0.3)
    assert float(weights[0] / weights[1]) == pytest.approx(0.65)


def test_the_levels_are_the_schedulers() -> None:
    scheduler = EulerDiscreteScheduler(
        prediction_type="v_prediction", timestep_type="continuous", use_karras_sigmas=True,
        sigma_min=0.02, sigma_max=80.0, timestep_spacing="leading", steps_offset=1,
        beta_schedule="scaled_linear",
    )  # fmt: skip
    scheduler.set_timesteps(9)
    ours = karras_sigmas(9, 0.02, 80.0)
    np.testing.assert_allclose(ours, scheduler.sigmas.cpu(), rtol=1e-4)


def test_with_a_perfect_network_samples_have_the_datas_spread() -> None:
    torch.manual_seed(0)
    pose = torch.zeros(64, 2, 3)
    condition = Condition(torch.zeros(64, 4, 8, 8), torch.zeros(64, 1, 8))
    sigmas = karras_sigmas(60, 0.002, 80.0)
    # Each Euler step is a factor here; for small steps the product tends to 0.5 / 80.
    factors = 1 + (sigmas[1:] - sigmas[:-1]) * sigmas[:-1] / (0.25 + sigmas[:-1] ** 2)
    expected = 80 * float(factors.prod())
    assert expected == pytest.approx(0.5, rel=0.06)
    latents = sample_latents(PerfectUNet(), pose, condition, sigmas)
    assert latents.shape == (64, 2, 4, 8, 8)
    assert float(latents.mean()) == pytest.approx(0.0, abs=0.01)
    assert float(latents.std()) == pytest.approx(expected, rel=0.01)
    assert math.isfinite(float(latents.abs().max()))
