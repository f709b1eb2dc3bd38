# SPDX-License-Identifier: Apache-2.0
"""Differentiable rendering of 3D Gaussians: one interface, torch anywhere and gsplat on CUDA."""

from gsv3d.rendering.renderer import RenderOutput, render

__all__ = ["RenderOutput", "render"]
