# SPDX-License-Identifier: Apache-2.0
"""Views with cameras to Gaussians, by optimization through the renderer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gsv3d.gaussians import Gaussians
from gsv3d.lifting.cloud import Cloud, place_gaussians
from gsv3d.lifting.hull import find_frame, surface_points
from gsv3d.lifting.losses import (
    average,
    depth_roughness,
    leave_out_largest,
    normal_disagreement,
    ssim,
)
from gsv3d.lifting.settings import LiftSettings
from gsv3d.lifting.views import Views
from gsv3d.rendering import render

Watch = Callable[[int, int, Callable[[], Gaussians]], None]
"""Called after each iteration with its number, of how many, and a function that returns the
Gaussians as they are, in the world they are fitted in. Raising ends the fit."""


def lift(views: Views, settings: LiftSettings, watch: Watch | None = None) -> Gaussians:
    """Fit Gaussians to views.

    The same views and settings give the same Gaussians bit by bit on the CPU.

    Args:
        views: two or more, with cameras of any scale.
        settings: settings of the fit.
        watch: told of progress; may raise ``Cancelled``.

    Returns:
        Gaussians in the cameras' world.

    Raises:
        DataError: the views have no visual hull, or a camera stands inside it.
    """
    frame = find_frame(views, settings.agreement)
    return frame.outward(fit_in_cube(frame.views(views), settings, watch))


def fit_in_cube(
    views: Views,
    settings: LiftSettings,
    watch: Watch | None = None,
    start: Gaussians | None = None,
) -> Gaussians:
    """Fit Gaussians to views of an object in the cube of side 1 at the origin.

    Args:
        views: views with cameras of the cube's world, see ``Frame``.
        settings: settings of the fit.
        watch: told of progress; may raise ``Cancelled``.
        start: Gaussians in the cube to begin with, instead of new ones on the visual hull; then
            ``count``, ``degree`` and ``agreement`` of the settings are not used.

    Raises:
        DataError: too few masks agree on any point.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    if start is None:
        points, colors = surface_points(views, settings.count, settings.agreement, generator)
        start = place_gaussians(points, colors, settings.degree, generator)
    cloud = Cloud(start, settings.rates, generator)

    def current() -> Gaussians:
        return cloud.gaussians().detach()

    total, step = settings.iterations, 0
    first, last = (share * total for share in settings.densify)
    for size, iterations in settings.stages:
        pictures = views.resized(size)
        order: list[int] = []
        for _ in range(iterations):
            if len(order) < min(settings.batch, len(views)):
                order += torch.randperm(len(views), generator=generator).tolist()
            chosen, order = order[: settings.batch], order[settings.batch :]
            behind = torch.rand(3, generator=generator).to(views.alpha.device)
            part = Views(pictures.colors[chosen], pictures.alpha[chosen], pictures.cameras[chosen])
            shape = step >= settings.shape_from * total
            cloud.step(compute_loss(cloud.gaussians(), part, behind, settings, shape), step / total)
            step += 1
            if first <= step <= last and step % settings.densify_every == 0:
                cloud.densify(settings.growth, settings.most)
            if watch is not None:
                watch(step, total, current)
    return current()


def compute_loss(
    gaussians: Gaussians, views: Views, behind: Tensor, settings: LiftSettings, shape: bool
) -> Tensor:
    """Return the sum of the losses, each times its weight.

    Args:
        gaussians: Gaussians in the world of the cameras.
        views: views that the Gaussians are compared with.
        behind: (3,) color of the background of this iteration.
        settings: settings with the weights.
        shape: whether the losses of normals and depth count.
    """
    weights = settings.weights
    output = render(gaussians, views.cameras, background=behind)
    alpha, depth = output.alpha[..., 0], output.depth[..., 0]
    wanted = views.colors + (1 - views.alpha[..., None]) * behind
    errors = (output.color - wanted).square().mean(dim=-1)
    counts = leave_out_largest(errors, weights.trim) if weights.trim > 0 else None
    loss = weights.rgb * average(errors, counts)
    if weights.ssim > 0:
        unlike = 1 - ssim(output.color, wanted).mean(dim=-1)
        loss = loss + weights.ssim * average(unlike, counts)
    if weights.mask > 0:
        loss = loss + weights.mask * average((alpha - views.alpha).square(), counts)
    if shape and weights.depth > 0:
        loss = loss + weights.depth * depth_roughness(depth, alpha)
    if shape and weights.normal > 0:
        loss = loss + weights.normal * normal_disagreement(gaussians, views.cameras, depth, alpha)
    return loss
