# SPDX-License-Identifier: Apache-2.0
"""The benchmark of drawing the views, at the smallest size, on the CPU."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from gsv3d.lab.training.machine import count_flops
from tests import tiny

PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "sampling.py"


@pytest.fixture
def sampling(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the benchmark's module, whose every configuration is the tiny one."""
    spec = importlib.util.spec_from_file_location("sampling", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "sampling", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "read_config", lambda _: tiny.CONFIG)
    return module


def test_both_pipelines_are_measured(sampling: Any, tmp_path: Path) -> None:
    output = tmp_path / "cost.json"
    options = ["--device", "cpu", "--frames", "4", "--steps", "2", "--output", str(output)]
    assert sampling.main(options) == 0
    record = json.loads(output.read_text("utf-8"))
    assert [row["name"] for row in record["pipelines"]] == ["ours", "stock"]
    for row in record["pipelines"]:
        assert 0 < row["step_s"] < row["total_s"] and 0 < row["decoding_s"] < row["total_s"]
        assert row["denoising_s"] == pytest.approx(2 * row["step_s"]) and row["peak_gb"] is None
        rate = record["flop"] / row["denoising_s"] / record["matrix_flop_per_s"]
        assert row["share"] == pytest.approx(rate)


@pytest.mark.parametrize(("name", "index"), [("cuda", 0), ("cuda:1", 1)])
def test_a_card_is_limited_by_its_name(
    sampling: Any, monkeypatch: pytest.MonkeyPatch, name: str, index: int
) -> None:
    """Limit a card named without its number, too, by torch's own function without a card."""
    limits = []
    monkeypatch.setattr(torch.cuda.memory, "_lazy_init", lambda: None)
    monkeypatch.setattr(
        torch._C, "_cuda_setMemoryFraction", lambda *limit: limits.append(limit), raising=False
    )
    card = SimpleNamespace(total_memory=int(48e9))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    sampling.limit_memory(torch.device(name), 12)
    assert limits == [(0.25, index)]


@torch.no_grad()
def test_the_work_is_that_of_the_real_calls(sampling: Any) -> None:
    config = sampling.match_sv3d(tiny.CONFIG, 4)
    pipeline = sampling.make_ours(config, torch.float32)
    unet, calls = pipeline.unet, []
    inputs = (torch.randn(1, 4, 8, 8, 8), torch.ones(1), torch.randn(1, 1, 16), torch.rand(1, 4, 3))
    with sdpa_kernel(SDPBackend.MATH):
        once = count_flops(lambda: calls.append(unet(*inputs)))
    assert sampling.count_work(config, 3) == 2 * 3 * once
    assert once > count_flops(lambda: calls.append(unet(*inputs)))  # without the attention
