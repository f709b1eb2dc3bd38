# SPDX-License-Identifier: Apache-2.0
"""Guidance against SV3D's published numbers."""

from __future__ import annotations

import pytest
import torch

from gsv3d.multiview.guidance import guide, triangular_guidance


def test_sv3ds_own_triangle() -> None:
    scales = triangular_guidance(21, 1.0, 2.5)
    assert torch.allclose(scales[:3], torch.tensor([1.0, 1.15, 1.30]))
    assert scales[10] == 2.5
    assert torch.allclose(scales, scales.flip(0), atol=1e-6)


def test_an_even_number_of_frames_stays_below_the_peak() -> None:
    assert torch.isclose(triangular_guidance(16, 1.0, 2.5).max(), torch.tensor(2.4))


def test_scale_one_is_the_conditional_prediction() -> None:
    unconditional, conditional = torch.randn(2, 1, 3, 2, 4, 4)
    assert torch.allclose(guide(unconditional, conditional, torch.ones(3)), conditional)
    doubled = guide(unconditional, conditional, torch.full((3,), 2.0))
    assert torch.allclose(doubled, 2 * conditional - unconditional, atol=1e-6)


def test_no_frames() -> None:
    with pytest.raises(ValueError, match="num_frames"):
        triangular_guidance(0, 1.0, 2.0)
