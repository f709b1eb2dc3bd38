# SPDX-License-Identifier: Apache-2.0
"""Conversion of SV3D's files to model folders, and files that cannot be used.

That the converted networks compute what the reference's do is in ``test_reference.py``.
"""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from gsv3d.errors import GSV3DError, ModelError, OutputError
from gsv3d.lab.training.config import read_config
from gsv3d.multiview import convert as module
from gsv3d.multiview.convert import convert, plan
from gsv3d.multiview.tensors import read_shapes
from tests.gsv3d.multiview import closed_form, published

UNET = "model.diffusion_model."
CLIP = "conditioner.embedders.0.open_clip.model."
ENCODER = "conditioner.embedders.1.encoder."
OTHER_LAYER = f"{UNET}input_blocks.1.0.in_layers.5.weight"


@pytest.fixture(autouse=True)
def heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNET_HEAD", 32)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """Return a file of SV3D_p, a tenth as wide."""
    return published.write_weights(
        tmp_path_factory.mktemp("published") / "sv3d_p ü.safetensors", "p"
    )


@pytest.mark.parametrize(
    ("version", "parameters", "fingerprint"),
    [
        ("p", 1_525_278_442, "4b0fa6faf4889805a4eee63846db6382459546df1e9eeb8aecb15eddbe133bf2"),
        ("u", 1_523_967_722, "796c8263d16a8b1826d7ce0124a51657a906cff682767ea24ba5ddaa7989353b"),
    ],
)
def test_the_published_names_and_shapes(version: str, parameters: int, fingerprint: str) -> None:
    """Compare with the list of the reference's own classes, built from its configurations."""
    found = published.list_shapes(version, published.Widths())

    def sums(prefix: str) -> tuple[int, int]:
        named = [math.prod(shape) for name, shape in found.items() if name.startswith(prefix)]
        return len(named), sum(named)

    assert published.digest_shapes(found) == fingerprint
    assert len(found) == 2_212
    assert sums(UNET) == (1_428, parameters)
    assert sums(CLIP) == (398, 683_800_065)
    assert sums(f"{CLIP}visual.") == (392, 632_076_800)
    assert sums(ENCODER) == (248, 83_653_863)
    assert sums("first_stage_model.") == (138, 49_490_179)


@pytest.mark.parametrize("version", ["p", "u"])
def test_every_published_tensor_has_one_place(version: str, monkeypatch) -> None:
    monkeypatch.setattr(module, "UNET_HEAD", 64)
    shapes = published.list_shapes(version, published.Widths())
    components = {c.folder: c.tensors for c in plan(Path("file"), shapes)}
    of_unet = [made.source for made in components["unet"]]
    assert len(of_unet) == len(set(of_unet)) == 1_428
    assert set(of_unet) == {name for name in shapes if name.startswith(UNET)}
    of_vae = [made.source for made in components["vae"] if made.source is not None]
    assert len(of_vae) == len(set(of_vae)) == 106 + 2 + 138
    assert sum(1 for made in components["vae"] if made.source is None) == 2
    thirds = [made for made in components["image_encoder"] if "in_proj" in (made.source or "")]
    assert len(thirds) == 3 * 2 * 32
    count = len(components["image_encoder"]) - len(thirds) + 2 * 32
    assert count == len({made.source for made in components["image_encoder"]}) == 392


def test_the_full_size_has_the_configuration_of_the_recipe() -> None:
    """Read from the shapes the configuration of ``gsv3d-576``."""
    module.UNET_HEAD = 64
    unet, vae, clip = module._networks(Path("file"), published.list_shapes("p", published.Widths()))
    config = read_config("gsv3d-576").components
    for network, component in ((unet, "unet"), (vae, "vae")):
        for field, value in config[component].items():
            found = network.config[field]
            assert (list(found) if isinstance(found, tuple) else found) == value, field
    for field, value in config["image_encoder"].items():
        assert getattr(clip.config, field) == value, field
    for field, value in module.SCHEDULER.items():
        assert config["scheduler"][field] == value, field


def test_the_folder_holds_half_precision_and_is_made_of_the_right_tensors(
    small: Path, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    target = tmp_path / "a model ü"
    assert convert(small, target, "p", lambda *told: seen.append(told), {"LICENSE": "mine"}) == "p"
    assert [p.name for p in tmp_path.iterdir()] == [target.name]
    assert (target / "LICENSE").read_text("utf-8") == "mine"
    assert seen[-1][0] == seen[-1][1] and seen == sorted(seen)
    vae = load_file(target / "vae" / "diffusion_pytorch_model.safetensors")
    clip = load_file(target / "image_encoder" / "model.safetensors")
    assert {t.dtype for t in (*vae.values(), *clip.values())} == {torch.float16}

    def of_file(name: str, *shape: int) -> torch.Tensor:
        return torch.from_numpy(closed_form.make_weight(name, shape)).half()

    quant = of_file(f"{ENCODER}quant_conv.weight", 8, 8, 1, 1)
    assert torch.equal(vae["quant_conv.weight"], quant)
    # The decoder that the reference runs is not the one in the conditioner.
    last = of_file("first_stage_model.decoder.conv_out.weight", 3, 32, 3, 3)
    assert torch.equal(vae["decoder.conv_out.weight"], last)
    assert torch.equal(vae["post_quant_conv.weight"][:, :, 0, 0], torch.eye(4).half())
    assert not vae["post_quant_conv.bias"].any()
    keys = of_file(f"{CLIP}visual.transformer.resblocks.1.attn.in_proj_weight", 480, 160)[160:320]
    assert torch.equal(clip["vision_model.encoder.layers.1.self_attn.k_proj.weight"], keys)
    with safe_open(target / "unet" / "diffusion_pytorch_model.safetensors", "pt") as file:
        assert len(list(file.keys())) == 1_428
    index = json.loads((target / "model_index.json").read_text("utf-8"))
    assert index["decoder"] == index["feature_encoder"] == [None, None]
    assert index["framing"] == 0.9


def test_other_precisions_are_read(tmp_path: Path) -> None:
    """Convert copies of the files in half precision and without the unneeded tensors."""
    tensors = {
        name: torch.from_numpy(closed_form.make_weight(name, shape)).to(
            torch.bfloat16 if name.startswith(UNET) else torch.float16
        )
        for name, shape in published.list_shapes("u").items()
        if name.startswith((UNET, f"{CLIP}visual", "first_stage", f"{ENCODER}enc"))
        or ".quant_conv" in name
    }
    save_file(tensors, tmp_path / "half.safetensors")
    assert convert(tmp_path / "half.safetensors", tmp_path / "model") == "u"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({f"{UNET}out.2.bias": None}, "lacks 1 tensor: model.diffusion_model.out.2.bias"),
        ({f"{UNET}label_emb.0.0.weight": None}, "lacks 1 tensor: .*label_emb.0.0.weight"),
        ({f"{CLIP}visual.proj": None}, "lacks 1 tensor: .*visual.proj"),
        (
            {f"{ENCODER}encoder.mid.block_{n}.norm1.bias": None for n in (1, 2)}
            | {f"{ENCODER}encoder.conv_{n}.bias": None for n in ("in", "out")},
            r"lacks 4 tensors: .*conv_in.bias, .*conv_out.bias, .*norm1.bias and 1 more",
        ),
        ({OTHER_LAYER: (4,)}, "has 1 tensor: .*in_layers.5.weight, for which SV3D has no place"),
        ({"model_ema.decay": (1,)}, "has 1 tensor: model_ema.decay, for which"),
        ({f"{UNET}out.2.bias": (5,)}, "has 1 tensor: .*out.2.bias of another shape"),
        ({f"{UNET}label_emb.0.0.weight": (128, 768)}, "conditioned by 768 numbers, and SV3D's by"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    tmp_path: Path, changes: dict[str, tuple[int, ...] | None], words: str
) -> None:
    found = {**published.list_shapes("p"), **changes}
    path = tmp_path / "file.safetensors"
    save_file({n: torch.empty(s) for n, s in found.items() if s is not None}, path)
    with pytest.raises(ModelError, match=words):
        convert(path, tmp_path / "model")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04" + bytes(100), "is a pickle, which can run any program"),
        (b"\x80\x02}q\x00." + bytes(100), "is a pickle, which can run any program"),
        (b"", "is no safetensors file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "is no safetensors file"),
        (None, "cannot be read: no such file"),
    ],
)
def test_files_of_another_kind_are_refused(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "sv3d_p.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=words):
        convert(path, tmp_path / "model")
    with pytest.raises(ModelError, match="it is a folder"):
        convert(tmp_path, tmp_path / "model")
    with pytest.raises(ModelError, match="cannot be read: "):
        convert(tmp_path / (300 * "a"), tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_a_file_cut_short_is_refused(small: Path, tmp_path: Path, share: float) -> None:
    whole = small.read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ModelError, match="is cut short or damaged. Get the file again"):
        convert(path, tmp_path / "model")


def test_other_models_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    save_file({"lora.down.weight": torch.zeros(4, 4)}, path)
    with pytest.raises(ModelError, match="is no file of SV3D: the UNet .* is not in it"):
        convert(path, tmp_path / "model")
    save_file({f"{UNET}out.2.bias": torch.zeros(4, dtype=torch.int8)}, path)
    with pytest.raises(ModelError, match="is stored as I8; F32, F16, BF16 can be read"):
        convert(path, tmp_path / "model")


def test_the_other_version_of_sv3d_is_refused(small: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is SV3D_p, not SV3D_u: it was trained with the cameras"):
        convert(small, tmp_path / "model", "u")
    assert not list(tmp_path.iterdir())


def test_values_that_float16_cannot_hold_are_named(small: Path, tmp_path: Path) -> None:
    name = f"{UNET}out.2.bias"
    path = tmp_path / "file.safetensors"
    for value in (1e6, math.nan):
        tensors = load_file(small)
        tensors[name][0] = value
        save_file(tensors, path)
        with pytest.raises(ModelError, match=f"'{name}' of the file has values"):
            convert(path, tmp_path / "model")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_full_disk_and_a_wish_to_stop_leave_nothing(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "models" / "sv3d"

    def run_out(written: int, total: int) -> None:
        if written > total / 2:
            assert (target.parent / ".sv3d.part" / "unet").is_dir()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OutputError, match="sv3d could not be written: the disk is full"):
        convert(small, target, progress=run_out)
    assert not list(target.parent.iterdir())

    def stop(written: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(small, target, progress=stop)
    assert not list(target.parent.iterdir())

    class Usage:
        free = 1e6

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    with pytest.raises(GSV3DError, match="needs 0.0 GB, and the disk of .* has 0.0 GB free"):
        convert(small, target)
    assert not list(target.parent.iterdir())


MEASURE = """
import re, sys
from pathlib import Path
import torch
from gsv3d.multiview import convert, tensors
convert.UNET_HEAD = 32
def peak():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search("VmHWM:\\s*(\\d+)", status).group(1))
convert.plan(Path("file"), tensors.read_shapes(Path(sys.argv[1])))
before = peak()
convert.convert(Path(sys.argv[1]), Path(sys.argv[2]))
print(before, peak())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells the peak of memory")
def test_one_tensor_at_a_time_is_in_memory(tmp_path: Path) -> None:
    """Convert a file of 1 GB (zeros that take no room), whose largest tensor has 30 MB."""
    widths = published.Widths(unet=128, vae=32, clip=480, clip_layers=8, vocabulary=7000)
    path, size = write_sparse(tmp_path / "file.safetensors", published.list_shapes("p", widths))
    assert size > 1e9
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), str(tmp_path / "model")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    before, after = map(int, done.stdout.split())
    largest = 4 * max(math.prod(shape) for shape in published.list_shapes("p", widths).values())
    assert after - before < 1.5 * largest + 150e6


def write_sparse(path: Path, shapes: published.Shapes) -> tuple[Path, int]:
    """Write a file of zeros, which the disk stores as a hole; return its size too."""
    header, place = {}, 0
    for name, shape in shapes.items():
        size = 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + place)
    return path, place


def test_a_file_is_not_read_to_know_its_shapes(tmp_path: Path) -> None:
    shapes = published.list_shapes("p", published.Widths())
    path, size = write_sparse(tmp_path / "sv3d_p.safetensors", shapes)
    assert size == 4 * 2_342_222_549
    assert read_shapes(path) == shapes
