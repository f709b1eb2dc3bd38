# SPDX-License-Identifier: Apache-2.0
"""The choice of device and of memory on a card, which changes nothing in the results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from accelerate.hooks import CpuOffload, UserCpuOffloadHook

from gsv3d.devices import choose_device, choose_memory, place
from gsv3d.errors import Cancelled, ModelError
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
    """The hooks that move networks to a card move them from the CPU to the CPU here."""
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


@pytest.mark.parametrize("gigabytes", [12, 8])
def test_cancelling_takes_every_network_off(monkeypatch: Any, gigabytes: int) -> None:
    """The next call gives the same as without the cancel."""
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
