# SPDX-License-Identifier: Apache-2.0
"""Train and sample the multi-view diffusion in EDM's form: noise levels, loss on v, sampler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from gsv3d.lab.training.fields import LogNoise, Share, Spread, Weight
from gsv3d.multiview.conditioning import Condition, predict_v

RHO = 7.0


def denoise(
    unet: nn.Module, noisy: Tensor, sigma: Tensor, pose: Tensor, condition: Condition
) -> Tensor:
    """Predict v under EDM's preconditioning (SV3D's VScalingWithEDMcNoise).

    Args:
        unet: an ``SV3DUNetSpatioTemporalConditionModel``.
        noisy: (B, T, L, h, w) latents plus sigma times noise.
        sigma: (B,) noise levels.
        pose: (B, T, 3), see ``pose_ids``.
        condition: what the orbits are drawn from.

    Returns:
        v (B, T, L, h, w) in float32, see ``estimate``.
    """
    c_in = (sigma**2 + 1).rsqrt()[:, None, None, None, None]
    return predict_v(unet, noisy * c_in, 0.25 * sigma.log(), pose, condition)


def estimate(noisy: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
    """Return the latents from v: ``noisy / (sigma^2 + 1) - v * sigma / sqrt(sigma^2 + 1)``.

    Args:
        noisy: (B, T, L, h, w) latents plus sigma times noise.
        v: (B, T, L, h, w) of ``denoise``.
        sigma: (B,) noise levels.
    """
    wide = sigma[:, None, None, None, None]
    return noisy / (wide**2 + 1) - v * wide / (wide**2 + 1).sqrt()


@dataclass(frozen=True)
class NoiseLevels:
    """Log-normal noise levels and the weights of the loss (EDM; SV3D, appendix C).

    Attributes:
        log_mean, log_std: mean and deviation of the noise level's logarithm (SV3D's fine-tuning
            used 0.7 and 1.6).
        reference_weight: weight of the reference frame's loss, relative to the frame opposite it.
    """

    log_mean: float
    log_std: float
    reference_weight: float

    def draw(self, size: int) -> Tensor:
        """Draw (size,) noise levels on the CPU, where code can branch on them without a wait."""
        return (self.log_mean + self.log_std * torch.randn(size)).exp()

    def frame_weights(self, pose: Tensor) -> Tensor:
        """Return (B, T) weights of (B, T, 3) poses: of mean 1, small near the reference."""
        away = 0.5 * (1 - torch.cos(pose[..., 2]))
        weight = self.reference_weight + (1 - self.reference_weight) * away
        return weight / weight.mean(dim=1, keepdim=True)

    def squared(self, estimated: Tensor, latents: Tensor, sigma: Tensor) -> Tensor:
        """Return (B, T) squared errors, weighted by 1 + sigma^-2: on v that is a weight of 1."""
        return ((estimated - latents) ** 2).mean(dim=(2, 3, 4)) * (1 + sigma**-2)[:, None]


@dataclass(frozen=True)
class NoiseSettings:
    """Settings of a stage that trains at drawn noise levels.

    Attributes:
        log_sigma_mean, log_sigma_std, reference_weight: see ``NoiseLevels``.
        drop_condition: share of samples trained without the reference, for guidance.
        sample_steps: denoising steps of a drawn sample.
    """

    log_sigma_mean: LogNoise = 0.7
    log_sigma_std: Spread = 1.6
    drop_condition: Share = 0.1
    reference_weight: Weight = 0.3
    sample_steps: Annotated[int, Field(ge=1, le=1000)] = 12

    def noise_levels(self) -> NoiseLevels:
        return NoiseLevels(self.log_sigma_mean, self.log_sigma_std, self.reference_weight)


def karras_sigmas(steps: int, smallest: float, largest: float) -> Tensor:
    """Return (steps + 1,) falling noise levels, the last 0 (EDM, equation 5, rho 7)."""
    ramp = torch.linspace(0, 1, steps)
    ends = smallest ** (1 / RHO), largest ** (1 / RHO)
    return torch.cat([(ends[1] + ramp * (ends[0] - ends[1])) ** RHO, torch.zeros(1)])


@torch.no_grad()
def sample_latents(unet: nn.Module, pose: Tensor, condition: Condition, sigmas: Tensor) -> Tensor:
    """Sample by deterministic Euler steps without guidance, for a look at how training goes.

    Args:
        unet: the model.
        pose: (B, T, 3), see ``pose_ids``.
        condition: what the orbits are drawn from.
        sigmas: noise levels of ``karras_sigmas``.

    Returns:
        (B, T, L, h, w) scaled latents.
    """
    reference = condition.reference
    shape = (len(reference), pose.shape[1], *reference.shape[1:])
    noisy = float(sigmas[0]) * torch.randn(shape, device=reference.device)
    for now, after in zip(sigmas.tolist(), sigmas.tolist()[1:], strict=False):
        sigma = torch.full((len(reference),), now, device=reference.device)
        v = denoise(unet, noisy, sigma, pose, condition)
        direction = (noisy - estimate(noisy, v, sigma)) / now
        noisy = noisy + (after - now) * direction
    return noisy
