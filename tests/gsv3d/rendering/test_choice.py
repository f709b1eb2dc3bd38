# SPDX-License-Identifier: Apache-2.0
"""The choice of a renderer and what the user is told; the card and the kernels are injected."""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Iterator

import pytest
import torch

from gsv3d.cameras import Cameras, orbit
from gsv3d.errors import GSV3DError
from gsv3d.gaussians import Gaussians
from gsv3d.rendering import gsplat_backend, render, renderer, torch_backend
from gsv3d.rendering.renderer import SlowRendererWarning, choose_backend

CUDA = torch.device("cuda", 0)
CPU = torch.device("cpu")
F32 = torch.float32


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    renderer._told.clear()
    gsplat_backend.unavailable_because.cache_clear()
    yield
    renderer._told.clear()
    gsplat_backend.unavailable_because.cache_clear()


@pytest.fixture
def backend_module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Replace the module with which gsplat loads its compiled kernels."""
    module = types.ModuleType("gsplat.cuda._backend")
    module._C = None  # type: ignore[attr-defined] # what gsplat leaves without a toolkit
    monkeypatch.setitem(sys.modules, "gsplat.cuda._backend", module)
    return module


def test_cpu_takes_torch_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_backend(CPU, F32, "auto") == "torch"
        assert choose_backend(CPU, F32, "torch") == "torch"
        assert choose_backend(CUDA, F32, "torch") == "torch"


def test_gsplat_on_the_cpu_is_refused_in_words() -> None:
    with pytest.raises(GSV3DError, match="gsplat draws on CUDA only, not on cpu"):
        choose_backend(CPU, F32, "gsplat")


def test_card_with_kernels_takes_gsplat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gsplat_backend, "unavailable_because", lambda device: "")
    assert choose_backend(CUDA, F32, "auto") == "gsplat"
    assert choose_backend(CUDA, F32, "gsplat") == "gsplat"
    # The kernels know float32 only.
    assert choose_backend(CUDA, torch.float64, "auto") == "torch"
    with pytest.raises(ValueError, match="float32 only"):
        choose_backend(CUDA, torch.float64, "gsplat")


@pytest.mark.usefixtures("backend_module")
def test_card_without_compiler_tells_once_what_it_costs_and_how_to_change_it() -> None:
    with pytest.warns(SlowRendererWarning) as told:
        assert choose_backend(CUDA, F32, "auto") == "torch"
    (warning,) = told
    text = str(warning.message)
    assert "no CUDA toolkit" in text and "slower" in text and "memory" in text
    assert "install the CUDA toolkit" in text and "Visual Studio" in text
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_backend(CUDA, F32, "auto") == "torch"
    with pytest.raises(GSV3DError, match="no CUDA toolkit"):
        choose_backend(CUDA, F32, "gsplat")


def test_failed_build_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        """A finder that fails as gsplat's import does when its compiler ends with an error."""

        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> None:
            if name == "gsplat.cuda._backend":
                raise RuntimeError("Error building extension 'gsplat_cuda'\nnvcc: no host compiler")

    monkeypatch.delitem(sys.modules, "gsplat.cuda._backend", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    reason = gsplat_backend.unavailable_because(CUDA)
    assert "could not be built" in reason and "Error building extension" in reason
    assert "\n" not in reason


@pytest.mark.skipif(torch.cuda.is_available(), reason="here the card would answer")
def test_kernels_that_do_not_run_are_named(backend_module: types.ModuleType) -> None:
    backend_module._C = types.SimpleNamespace()  # type: ignore[attr-defined] # loads, can nothing
    assert "do not run on this card" in gsplat_backend.unavailable_because(CUDA)


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(ValueError, match="'cuda'.*auto, torch, gsplat"):
        choose_backend(CPU, F32, "cuda")  # type: ignore[arg-type]


def make_gaussians(dtype: torch.dtype = F32) -> Gaussians:
    generator = torch.Generator().manual_seed(0)
    return Gaussians.from_rgb(
        0.3 * torch.randn(200, 3, generator=generator),
        torch.randn(200, 4, generator=generator),
        torch.full((200, 3), 0.05),
        torch.rand(200, generator=generator),
        torch.rand(200, 3, generator=generator),
    ).to(dtype)


def test_render_takes_the_chosen_one(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fake(gaussians: Gaussians, cameras: object) -> tuple[torch.Tensor, ...]:
        calls.append(len(gaussians))
        return torch_backend.render_maps(gaussians, cameras)  # type: ignore[arg-type]

    monkeypatch.setattr(renderer, "choose_backend", lambda *_: "gsplat")
    monkeypatch.setattr(gsplat_backend, "render_maps", fake)
    render(make_gaussians(), orbit([0], 0, size=8))
    assert calls == [200]


def test_half_precision_and_autocast_draw_in_float32() -> None:
    cameras = orbit([0], 0, size=16)
    half = make_gaussians(torch.bfloat16)
    expected = render(half.to(F32), cameras)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = render(half, cameras)
    for a, b in zip(expected, found, strict=True):
        assert b.dtype == F32 and torch.equal(a, b)


def test_a_background_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"background has shape \(4,\)"):
        render(make_gaussians(), orbit([0], 0, size=8), (0, 0, 0, 1))


def test_cameras_without_views_are_refused() -> None:
    with pytest.raises(ValueError, match="no views"):
        render(make_gaussians(), orbit([0], 0, size=8)[:0])


def test_large_scenes_in_pieces_give_the_same_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare pictures and gradients of views alone, views together, and one view in bands."""
    cameras = orbit([0, 90, 180], [0, 30, 60], size=33)
    monkeypatch.setattr(torch_backend, "_is_compiled", lambda device: False)
    results = []
    for budget in (1 << 23, 20_000, 1_500):
        monkeypatch.setattr(torch_backend, "PAIRS_AT_ONCE", budget)
        scene = make_gaussians(torch.float64)
        values = [value.requires_grad_() for value in vars(scene).values()]
        output = render(Gaussians(*values), cameras)
        loss = (output.color**2).sum() + output.alpha.sum() + (output.depth**2).sum()
        results.append([*output, *torch.autograd.grad(loss, values)])
    pairs = torch_backend._split_into_chunks([30_000.0] * 3, 33)
    assert len(pairs) == 3 * 20 and pairs[0] == (0, 1, 0, 1) and pairs[-1][3] == 33
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_chunks_cover_every_view_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_backend, "PAIRS_AT_ONCE", 10)
    assert torch_backend._split_into_chunks([4, 4, 4, 25, 1, 1], 9) == [
        (0, 2, 0, 9), (2, 3, 0, 9), (3, 4, 0, 3), (3, 4, 3, 6), (3, 4, 6, 9), (4, 6, 0, 9),
    ]  # fmt: skip
    assert torch_backend._split_into_chunks([0, 0], 9) == [(0, 2, 0, 9)]


def test_the_trial_passes_what_draws_and_not_what_draws_nothing(monkeypatch) -> None:
    """Put the torch renderer in gsplat's place."""
    monkeypatch.setattr(gsplat_backend, "render_maps", torch_backend.render_maps)
    gsplat_backend._render_one(CPU)

    def faint(gaussians: Gaussians, cameras: Cameras) -> tuple[torch.Tensor, ...]:
        return tuple(0.9 * picture for picture in torch_backend.render_maps(gaussians, cameras))

    monkeypatch.setattr(gsplat_backend, "render_maps", faint)
    with pytest.raises(RuntimeError, match=r"one opaque Gaussian has an alpha of 0\.899"):
        gsplat_backend._render_one(CPU)
