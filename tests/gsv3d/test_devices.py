# SPDX-License-Identifier: Apache-2.0
"""The choice of device and of memory on a card, which changes nothing in the results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from accelerate.hooks import CpuOffload, UserCpuOffloadHook
from PIL import Image

from gsv3d.devices import choose_device, choose_memory, place
from gsv3d.errors import Cancelled, ModelError
from gsv3d.generation import generate
from gsv3d.settings import GenerationSettings
from tests import tiny

CPU = torch.device("cpu")
SV3D_BYTES = 4_700_000_000


@pytest.mark.parametrize(
    ("free", "expected"), [(141e9, 24), (23e9, 24), (15e9, 12), (11e9, 12), (7.5e9, 8), (1e9, 8)]
)
def test_auto_memory_goes_by_what_is_free_on_the_card(
    monkeypatch: Any, free: float, expected: int
) -> None:
    card = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (int(free), 2 * int(free)))
    assert choose_memory("auto", card, SV3D_BYTES) == expected
    assert choose_memory("12", card, SV3D_BYTES) == 12
    assert choose_memory("auto", card, 50_000_000) == 24  # blockout fits everywhere
    assert choose_memory("8", CPU, SV3D_BYTES) == 24


def call_pipeline(pipeline: Any, **options: Any) -> Any:
    generator = torch.Generator().manual_seed(1)
    return pipeline(tiny.picture(), generator=generator, **options)


@pytest.mark.parametrize("gigabytes", [12, 8])
def test_networks_come_and_go_in_the_order_of_the_call(monkeypatch: Any, gigabytes: int) -> None:
    """Have the hooks that move networks to a card move them from the CPU to the CPU."""
    plain = call_pipeline(place(tiny.tiny_pipeline(), CPU, 24))
    pipeline = place(tiny.tiny_pipeline(), CPU, gigabytes)
    names = {id(part): name for name, part in pipeline.components.items()}
    seen: list[str] = []

    def note(self: CpuOffload, module: torch.nn.Module, *args: Any, **options: Any) -> Any:
        seen.append(names[id(module)])
        return moved(self, module, *args, **options)

    moved = CpuOffload.pre_forward
    monkeypatch.setattr(CpuOffload, "pre_forward", note)
    found = call_pipeline(pipeline)
    order = [name for name, before in zip(seen, [None, *seen], strict=False) if name != before]
    assert order == ["image_encoder", "vae", "feature_encoder", "unet", "decoder", "vae"]
    np.testing.assert_allclose(found.views, plain.views, atol=1e-5)
    assert torch.allclose(found.latents, plain.latents, atol=1e-4)
    assert len(found.gaussians) == len(plain.gaussians)


@pytest.fixture
def on_card(monkeypatch: Any) -> set[str]:
    """Return the classes that hooks have brought and not taken away, for hooks on the CPU."""
    there: set[str] = set()
    come, go = CpuOffload.pre_forward, CpuOffload.init_hook

    def note_coming(self: CpuOffload, module: torch.nn.Module, *args: Any, **options: Any) -> Any:
        there.add(type(module).__name__)
        return come(self, module, *args, **options)

    def note_going(self: CpuOffload, module: torch.nn.Module) -> torch.nn.Module:
        there.discard(type(module).__name__)
        return go(self, module)

    monkeypatch.setattr(CpuOffload, "pre_forward", note_coming)
    monkeypatch.setattr(CpuOffload, "init_hook", note_going)
    return there


def test_the_unet_has_the_card_for_itself(on_card: set[str]) -> None:
    pipeline = place(tiny.tiny_pipeline(), CPU, 12)
    seen = []
    conv_in = pipeline.unet.conv_in
    conv_in.register_forward_pre_hook(lambda *_: seen.append(set(on_card)))

    def preview(pipe: Any, step: int, _time: Any, state: dict[str, Any]) -> dict[str, Any]:
        pipe.decode_gaussians(state["latents"])
        pipe.decode_views(state["latents"])
        return {}

    call_pipeline(pipeline, callback_on_step_end=preview)
    assert seen == 6 * [{"SV3DUNetSpatioTemporalConditionModel"}]
    assert not on_card


def test_nothing_stays_on_the_card_while_gaussians_are_fitted(
    on_card: set[str], monkeypatch: Any
) -> None:
    pipeline = tiny.tiny_pipeline()
    pipeline.register_modules(decoder=None, feature_encoder=None)
    seen = []

    def fit(*_: Any) -> None:
        seen.append(set(on_card))
        raise Cancelled

    monkeypatch.setattr("gsv3d.generation.lift_model_views", fit)
    with pytest.raises(Cancelled):
        generate(place(pipeline, CPU, 12), Image.fromarray(tiny.picture()), GenerationSettings())
    assert seen == [set()]


@pytest.mark.parametrize("gigabytes", [12, 8])
def test_cancelling_takes_every_network_off(monkeypatch: Any, gigabytes: int) -> None:
    """Give in the next call what it would give without the cancel."""
    pipeline = place(tiny.tiny_pipeline(), CPU, gigabytes)
    expected = call_pipeline(pipeline).latents

    def stop(pipe: Any, step: int, *_: Any) -> dict[str, Any]:
        pipe.decode_views(_[1]["pred_original_latents"])  # a preview, with the decoder of pictures
        if step == 1:
            raise Cancelled
        return {}

    moved: list[torch.device] = []
    to = type(pipeline).to
    monkeypatch.setattr(
        type(pipeline), "to", lambda self, *a, **k: moved.append(a[0]) or to(self, *a, **k)
    )
    with pytest.raises(Cancelled):
        asked = ("pred_original_latents",)
        call_pipeline(pipeline, callback_on_step_end=stop, callback_on_step_end_tensor_inputs=asked)
    assert moved == ["cpu"] and all(
        isinstance(hook, UserCpuOffloadHook) for hook in pipeline._all_hooks
    )
    assert torch.allclose(call_pipeline(pipeline).latents, expected, atol=1e-5)


def test_a_device_is_chosen_by_its_name() -> None:
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ModelError, match="no kind of device 'gpu'"):
        choose_device("gpu")
    with pytest.raises(ModelError, match="not there"):
        choose_device("cuda:77")
    with pytest.raises(ModelError, match="does not run on 'meta'"):
        choose_device("meta")
