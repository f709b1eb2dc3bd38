# SPDX-License-Identifier: Apache-2.0
"""Time ``gsv3d.rendering.render``, forward and backward, beside another renderer and a limit.

Run: ``python benchmarks/rendering.py [--threads N] [--device cuda]``

- peer: the common renderer in plain torch, with the same projection and picture. Each tile of
  16 x 16 pixels takes all Gaussians whose bounding box touches it, with ``cumprod`` and autograd.
- limit: the work that a renderer of sorted (Gaussian, pixel) pairs cannot avoid: one stable sort
  of the pairs, one exp and one random read for each.
- no gradients: the forward pass alone.
- gsplat: its CUDA kernels, where a card can run them.

Best of several runs, in ms; the scene is a shell of random Gaussians seen by four cameras.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable

import torch
from torch import Tensor

from gsv3d.cameras import Cameras, orbit
from gsv3d.gaussians import Gaussians
from gsv3d.rendering import gsplat_backend, render
from gsv3d.rendering.projection import project

CASES = [
    (64, 8_192, 0.01, 0.0),
    (64, 8_192, 0.02, -3.0),
    (64, 8_192, 0.01, 3.0),
    (128, 16_384, 0.01, 0.0),
    (128, 65_536, 0.005, 0.0),
    (256, 16_384, 0.01, 0.0),
]
"""Pixels, Gaussians, scale and opacity bias, from a step of training to a large picture."""


def make_scene(count: int, scale: float, bias: float, device: torch.device) -> list[Tensor]:
    """Return leaves of a shell of diameter 0.7: means, quats, log scales, logits, colors."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    leaves = [
        0.35 * torch.nn.functional.normalize(normal(count, 3), dim=-1),
        normal(count, 4),
        torch.full((count, 3), scale).log() + 0.3 * normal(count, 3),
        normal(count) + bias,
        torch.rand(count, 3, generator=generator),
    ]
    return [leaf.to(device).requires_grad_() for leaf in leaves]


def make_gaussians(leaves: list[Tensor]) -> Gaussians:
    means, quats, scales, logits, colors = leaves
    return Gaussians.from_rgb(means, quats, scales.exp(), logits.sigmoid(), colors)


def render_in_tiles(scene: Gaussians, cameras: Cameras, tile: int = 16) -> tuple[Tensor, Tensor]:
    """Render color (V, H, W, 3) and alpha (V, H, W) with dense tiles and autograd."""
    size = cameras.width
    flat = project(scene.means, scene.quats, scene.scales, cameras.viewmats, cameras.Ks, size, size)
    colors = scene.rgb()
    offsets = torch.arange(tile, device=scene.device) + 0.5
    pictures, alphas = [], []
    for view in range(len(cameras)):
        order = flat.depth[view].detach().argsort()
        u, v, var_x, cov_xy, var_y = (values[view][order] for values in flat[:5])
        determinant = var_x * var_y - cov_xy * cov_xy
        reach_x, reach_y = 3.33 * var_x.detach().sqrt(), 3.33 * var_y.detach().sqrt()
        rows = []
        for top in range(0, size, tile):
            row = []
            for left in range(0, size, tile):
                near = (u + reach_x > left) & (u - reach_x < left + tile)
                near &= (v + reach_y > top) & (v - reach_y < top + tile)
                index = near.nonzero()[:, 0]
                dx = (offsets + left)[None, None, :] - u[index, None, None]
                dy = (offsets + top)[None, :, None] - v[index, None, None]
                a, b, c, d = (
                    values[index, None, None] for values in (var_x, cov_xy, var_y, determinant)
                )
                sigma = 0.5 * (c * dx * dx - 2 * b * dx * dy + a * dy * dy) / d
                alpha = (scene.opacities[order][index, None, None] * torch.exp(-sigma)).clamp_max(
                    0.999
                )
                alpha = alpha * (alpha >= 1 / 255)
                through = torch.cumprod(1 - alpha, dim=0)
                before = torch.cat([torch.ones_like(through[:1]), through[:-1]])
                weight = alpha * before * (through > 1e-4)
                picture = torch.einsum("nhw,nc->hwc", weight, colors[order][index])
                row.append(torch.cat([picture, weight.sum(0)[..., None]], dim=-1))
            rows.append(torch.cat(row, dim=1))
        picture = torch.cat(rows)
        pictures.append(picture[..., :3])
        alphas.append(picture[..., 3])
    return torch.stack(pictures), torch.stack(alphas)


def measure(
    draw: Callable[[Gaussians], tuple[Tensor, ...]], leaves: list[Tensor], repeats: int
) -> tuple[float, float]:
    """Return the best times of the forward and the backward pass in ms."""
    device = leaves[0].device

    def read_clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    forward, backward = [], []
    for _ in range(repeats + 1):
        start = read_clock()
        outputs = draw(make_gaussians(leaves))
        drawn = read_clock()
        sum((output * output).mean() for output in outputs).backward()
        done = read_clock()
        forward.append(drawn - start)
        backward.append(done - drawn)
    return 1e3 * min(forward[1:]), 1e3 * min(backward[1:])


def measure_forward(
    draw: Callable[[Gaussians], tuple[Tensor, ...]], leaves: list[Tensor], repeats: int
) -> float:
    """Return the best time of a forward pass without gradients in ms."""
    times = []
    with torch.no_grad():
        for _ in range(repeats + 1):
            start = time.perf_counter()
            draw(make_gaussians(leaves))[0].sum().item()  # waits for a card
            times.append(time.perf_counter() - start)
    return 1e3 * min(times[1:])


def count_pairs(leaves: list[Tensor], cameras: Cameras) -> int:
    """Count (Gaussian, pixel) pairs with alpha of at least 1/255, by the areas of the ellipses."""
    with torch.no_grad():
        flat = make_gaussians(leaves)
        size = cameras.width
        projected = project(
            flat.means, flat.quats, flat.scales, cameras.viewmats, cameras.Ks, size, size
        )
        reach = 2 * torch.log((flat.opacities * 255).clamp_min(1))
        return int((torch.pi * reach * projected.determinant.sqrt()).sum())


def time_limit(pairs: int, pixels: int, device: torch.device, repeats: int) -> float:
    """Return the best time in ms of the work that sorting (Gaussian, pixel) pairs needs."""
    pixel = torch.randint(pixels, (pairs,), device=device, dtype=torch.int32)
    values = torch.rand(pairs, device=device)
    times = []
    for _ in range(repeats):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        _, order = torch.sort(pixel, stable=True)
        values.exp().index_select(0, order)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cases", type=int, default=4, help="the first so many cases")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    print(f"torch {torch.__version__}, {name}, {arguments.threads} threads; forward/backward in ms")
    print(
        f"{'4 views of':>10} {'Gaussians':>9} {'pairs':>10} {'torch':>11} {'peer':>11} {'limit':>6}"
        f" {'no gradients':>12}"
    )
    for size, count, scale, bias in CASES[: arguments.cases]:
        cameras = orbit([0, 90, 180, 270], 10.0, size=size).to(device)
        leaves = make_scene(count, scale, bias, device)
        pairs = count_pairs(leaves, cameras)

        def ours(flat: Gaussians, cameras: Cameras = cameras) -> tuple[Tensor, ...]:
            return render(flat, cameras, backend="torch")[:2]

        def fast(flat: Gaussians, cameras: Cameras = cameras) -> tuple[Tensor, ...]:
            return render(flat, cameras, backend="gsplat")[:2]

        def peer(flat: Gaussians, cameras: Cameras = cameras) -> tuple[Tensor, ...]:
            return render_in_tiles(flat, cameras)

        with torch.no_grad():
            difference = (
                (ours(make_gaussians(leaves))[0] - peer(make_gaussians(leaves))[0]).abs().mean()
            )
        if difference > 1e-4:
            raise SystemExit(f"the pictures differ by {float(difference):.2g}: nothing to compare")
        columns = [measure(ours, leaves, arguments.repeats), measure(peer, leaves, 1)]
        line = f"{size:>10} {count:>9} {pairs:>10} "
        line += " ".join(f"{f:>5.0f}/{b:<5.0f}" for f, b in columns)
        line += f" {time_limit(pairs, 4 * size * size, device, arguments.repeats):>6.0f}"
        line += f" {measure_forward(ours, leaves, arguments.repeats):>12.1f}"
        if device.type == "cuda" and not gsplat_backend.unavailable_because(
            torch.device("cuda", device.index or 0)
        ):
            line += "  gsplat {:.1f}/{:.1f}".format(*measure(fast, leaves, arguments.repeats))
        print(line, flush=True)


if __name__ == "__main__":
    main()
