# SPDX-License-Identifier: Apache-2.0
"""SV3D's published files to a model folder: tensor by tensor, whole or not at all."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from diffusers import __version__ as diffusers_version
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from gsv3d.errors import ModelError
from gsv3d.multiview import names
from gsv3d.multiview.unet import SV3DUNetSpatioTemporalConditionModel
from gsv3d.outputs import make_folder, output_error

IMAGE_SIZE, LATENT_SIZE, NUM_FRAMES, NUM_STEPS, MAX_GUIDANCE = 576, 72, 21, 50, 2.5
"""SV3D's, which its files do not tell."""

FRAMING = 0.9
"""Share of the picture that SV3D's objects fill: they were rendered as near as they fit (SV3D,
appendix B), and the script of SV4D frames pictures at 0.917 for the same model."""

UNET_HEAD, CLIP_HEAD = 64, 80
"""Channels of one attention head, which shapes do not tell either."""

VERSIONS = {256: "u", 1280: "p"}
"""SV3D_u or SV3D_p, by how many numbers condition a frame: cond_aug, or its two angles as well."""

SCHEDULER = {
    "prediction_type": "v_prediction",
    "timestep_type": "continuous",
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "use_karras_sigmas": True,
    "sigma_min": 0.002,
    "sigma_max": 700.0,
    "beta_schedule": "scaled_linear",
}

DESCRIPTIONS = {
    "p": "SV3D_p: 21 views at 576 px, from the elevation asked for.",
    "u": "SV3D_u: 21 views at 576 px, from the picture's own elevation.",
}

_DTYPES = ("F32", "F16", "BF16")
_MAPPED_BYTES = 2**23
_PICKLE, _ZIP = b"\x80", b"PK\x03\x04"
_AGAIN = (
    "Get the file again, sv3d_p.safetensors or sv3d_u.safetensors as Stability AI publishes it."
)

Progress = Callable[[int, int], None]
"""Told of bytes written, and of all bytes to write; may raise to end the conversion."""


@dataclass(frozen=True)
class Made:
    """A tensor of ours, and the one it is made of.

    Attributes:
        name: in our file.
        shape: in our file.
        source: its name in the published file; None for the identity.
    """

    name: str
    shape: tuple[int, ...]
    source: str | None

    @property
    def size(self) -> int:
        """Bytes in float16."""
        return 2 * math.prod(self.shape)

    def fits(self, shape: Sequence[int]) -> bool:
        """Return True if the published tensor has the shape this one is made of."""
        expected: tuple[int, ...] = self.shape
        if names.third(self.name) is not None:
            expected = (3 * self.shape[0], *self.shape[1:])
        elif self.name == "visual_projection.weight":
            expected = self.shape[::-1]
        elif len(self.shape) == 2 and len(shape) == 4:
            # The VAE's attention: a convolution of one pixel there, a linear layer here.
            expected = (*self.shape, 1, 1)
        return tuple(shape) == expected

    def make(self, published: Tensor | None) -> Tensor:
        """Return the tensor in float16."""
        if published is None:
            square = self.name.endswith("weight")
            tensor = torch.eye(self.shape[0]) if square else torch.zeros(self.shape)
        elif (part := names.third(self.name)) is not None:
            tensor = published.chunk(3)[part]
        elif self.name == "visual_projection.weight":
            tensor = published.T
        else:
            tensor = published
        half = tensor.to(torch.float16).reshape(self.shape).contiguous()
        # In place of isfinite(), which takes as much memory again.
        if not all(map(math.isfinite, half.aminmax())):
            raise ModelError(
                f"The tensor '{self.source}' of the file has values that are no numbers, or too"
                " large for float16.",
                _AGAIN,
            )
        return half


@dataclass(frozen=True)
class Component:
    """One network of the model: where it is written, its configuration and its tensors."""

    folder: str
    weights: str
    save_config: Callable[[Path], Any]
    tensors: list[Made]


def convert(
    source: Path,
    target: Path,
    version: str | None = None,
    progress: Progress | None = None,
    texts: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Write SV3D's UNet, CLIP tower and VAE as a folder in diffusers' layout, in float16.

    Of the file's tensors one at a time is in memory. The folder appears when it is complete.

    Args:
        source: ``sv3d_p.safetensors`` or ``sv3d_u.safetensors``.
        target: the folder; it must not exist.
        version: "p" or "u", where it must be that one.
        progress: told how far it is.
        texts: of files to put beside the model, by their names.

    Returns:
        "p" or "u".

    Raises:
        ModelError: the file is none of the two, is damaged, or is the other one.
        OutputError: the disk is full, or the folder cannot be written.
    """
    shapes = read_shapes(source)
    found = version_of(source, shapes)
    if version not in (None, found):
        raise ModelError(
            f"{source} is SV3D_{found}, not SV3D_{version}: it was trained"
            f" {'with' if found == 'p' else 'without'} the cameras of its views.",
            f"Give sv3d_{version}.safetensors, or convert it as what it is.",
        )
    components = plan(source, shapes)
    make_folder(target.parent)
    total = sum(made.size for component in components for made in component.tensors)
    with whole_folder(target, total) as partial:
        written = 0

        def told(count: int) -> None:
            nonlocal written
            written += count
            if progress is not None:
                progress(written, total)

        for component in components:
            folder = partial / component.folder
            component.save_config(folder)
            write_tensors(folder / component.weights, component.tensors, source, told)
        EulerDiscreteScheduler(**SCHEDULER).save_pretrained(partial / "scheduler")
        (partial / "model_index.json").write_text(json.dumps(_index(), indent=2), "utf-8")
        for name, text in {"description.txt": DESCRIPTIONS[found] + "\n", **texts}.items():
            (partial / name).write_text(text, "utf-8")
    return found


@contextmanager
def whole_folder(target: Path, size: int = 0) -> Iterator[Path]:
    """Yield a folder beside ``target`` that gets its name at the end, or is deleted.

    Args:
        target: must not exist.
        size: bytes that will be written.

    Raises:
        ModelError: the disk has no room for them.
        OutputError: something could not be written.
    """
    partial = target.with_name(f".{target.name}.part")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        free = shutil.disk_usage(target.parent).free
        if free < size:
            raise ModelError(
                f"{target} needs {size / 1e9:.1f} GB, and its disk has {free / 1e9:.1f} GB free.",
                "Free some space, or let GSV3D_MODELS name a folder on another disk.",
            )
        partial.mkdir(parents=True)
        yield partial
        os.rename(partial, target)
    except OSError as error:
        raise output_error(target, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_shapes(source: Path) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of a safetensors file, of whose tensors none is read.

    Raises:
        ModelError: it is not there, no such file, a pickle, cut short or of an unknown precision.
    """
    with _opened(source) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        unknown = next((n for n, s in slices.items() if s.get_dtype() not in _DTYPES), None)
        if unknown is not None:
            raise ModelError(
                f"The tensor '{unknown}' of {source} is stored as"
                f" {slices[unknown].get_dtype()}; {', '.join(_DTYPES)} can be read.",
                _AGAIN,
            )
        return {name: tuple(part.get_shape()) for name, part in slices.items()}


@contextmanager
def _opened(source: Path) -> Iterator[Any]:
    try:
        with open(source, "rb") as plain:
            start = plain.read(9)
        if start.startswith(_ZIP) or start[:1] == _PICKLE:
            raise ModelError(
                f"{source} is a pickle, which can run any program when it is opened, and is not"
                " read.",
                "Get the same weights as a .safetensors file.",
            )
        with safe_open(source, framework="pt") as file:
            yield file
    except SafetensorError as error:
        # The length of the header, eight bytes, comes before it.
        words = "is cut short or damaged" if start[8:] == b"{" else "is no safetensors file"
        raise ModelError(f"{source} {words}.", _AGAIN) from error
    except OSError as error:
        reason = "it is a folder" if source.is_dir() else (error.strerror or str(error)).lower()
        raise ModelError(f"{source} cannot be read: {reason}.", _AGAIN) from error


def version_of(source: Path, shapes: dict[str, tuple[int, ...]]) -> str:
    """Return "p" or "u", by how many numbers condition a frame.

    Raises:
        ModelError: it is no file of SV3D.
    """
    for part, prefix in names.PREFIXES.items():
        if not any(name.startswith(prefix) for name in shapes):
            raise ModelError(
                f"{source} is no file of SV3D: {part} ('{prefix}...') is not in it.", _AGAIN
            )
    width = _shape(source, shapes, f"{names.UNET}label_emb.0.0.weight")[-1]
    if width not in VERSIONS:
        raise ModelError(
            f"{source} is no file of SV3D: its frames are conditioned by {width} numbers, and"
            f" SV3D's by {' or '.join(map(str, VERSIONS))}.",
            _AGAIN,
        )
    return VERSIONS[width]


def plan(source: Path, shapes: dict[str, tuple[int, ...]]) -> list[Component]:
    """Return the networks of a file, and of what each of their tensors is made.

    Raises:
        ModelError: tensors are missing, of another shape, or cannot be placed.
    """
    unet, vae, clip = _networks(source, shapes)
    levels = len(vae.config["block_out_channels"])

    def tensors(module: nn.Module, source_of: Callable[[str], str | None]) -> list[Made]:
        state = module.state_dict().items()
        return [Made(name, tuple(value.shape), source_of(name)) for name, value in state]

    components = [
        Component("unet", "diffusion_pytorch_model.safetensors", unet.save_config,
                  tensors(unet, names.of_unet)),
        Component("vae", "diffusion_pytorch_model.safetensors", vae.save_config,
                  tensors(vae, lambda name: names.of_vae(name, levels))),
        Component("image_encoder", "model.safetensors", clip.config.save_pretrained,
                  tensors(clip, names.of_clip)),
    ]  # fmt: skip
    made = [one for component in components for one in component.tensors if one.source is not None]
    used = {str(one.source) for one in made}
    missing = sorted(used - shapes.keys())
    if missing:
        raise ModelError(f"{source} lacks {_listed(missing)}.", _AGAIN)
    extra = sorted(n for n in shapes.keys() - used if not names.LEFT_OVER.fullmatch(n))
    if extra:
        raise ModelError(f"{source} has {_listed(extra)}, for which SV3D has no place.", _AGAIN)
    wrong = sorted({str(one.source) for one in made if not one.fits(shapes[str(one.source)])})
    if wrong:
        raise ModelError(f"{source} has {_listed(wrong)} of another shape than SV3D's.", _AGAIN)
    return components


def write_tensors(
    path: Path, tensors: list[Made], source: Path, told: Callable[[int], None]
) -> None:
    """Write a safetensors file while reading another, one tensor at a time.

    Args:
        path: the file to write.
        tensors: what it shall hold.
        source: the file they are made of.
        told: of every piece, its bytes.

    Raises:
        OSError: the disk is full, ...
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for made in tensors:
        offsets = [place, place + made.size]
        header[made.name] = {"dtype": "F16", "shape": made.shape, "data_offsets": offsets}
        place += made.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for made, published in _read(source, tensors):
            file.write(made.make(published).numpy().data)
            told(made.size)
        file.flush()
        os.fsync(file.fileno())


def _read(source: Path, tensors: list[Made]) -> Iterator[tuple[Made, Tensor | None]]:
    """Read one after the other.

    What was read through a mapped file counts as this process's memory until the file is closed, so
    it is closed every few tensors.
    """
    waiting = list(reversed(tensors))
    while waiting:
        mapped = 0
        with _opened(source) as file:
            while waiting and mapped < _MAPPED_BYTES:
                made = waiting.pop()
                yield made, None if made.source is None else file.get_tensor(made.source)
                mapped += 2 * made.size


def _networks(
    source: Path, shapes: dict[str, tuple[int, ...]]
) -> tuple[SV3DUNetSpatioTemporalConditionModel, AutoencoderKL, CLIPVisionModelWithProjection]:
    """Make the three networks, without weights, as large as the file's shapes say."""

    def shape(name: str) -> tuple[int, ...]:
        return _shape(source, shapes, name)

    inputs = f"{names.UNET}input_blocks"
    widths = [shape(f"{inputs}.{block}.0.in_layers.2.weight")[0] for block in (1, 4, 7, 10)]
    encoder = f"{names.ENCODER}encoder.down"
    channels = [shape(f"{encoder}.{level}.block.0.conv1.weight")[0] for level in range(4)]
    latent_channels = shape(f"{names.UNET}out.2.weight")[0]
    visual = f"{names.CLIP}visual."
    layer = re.compile(re.escape(visual) + r"transformer\.resblocks\.(\d+)\.")
    width, _, patch, _ = shape(f"{visual}conv1.weight")
    side = math.isqrt(shape(f"{visual}positional_embedding")[0] - 1)
    with torch.device("meta"):
        unet = SV3DUNetSpatioTemporalConditionModel(
            sample_size=LATENT_SIZE,
            in_channels=2 * latent_channels,
            out_channels=latent_channels,
            block_out_channels=tuple(widths),
            projection_class_embeddings_input_dim=shape(f"{names.UNET}label_emb.0.0.weight")[1],
            cross_attention_dim=shape(
                f"{inputs}.1.1.transformer_blocks.0.attn2.to_k.weight"
            )[1],
            num_attention_heads=tuple(max(1, w // UNET_HEAD) for w in widths),
            num_frames=NUM_FRAMES,
        )  # fmt: skip
        vae = AutoencoderKL(
            latent_channels=latent_channels,
            block_out_channels=tuple(channels),
            down_block_types=("DownEncoderBlock2D",) * len(channels),
            up_block_types=("UpDecoderBlock2D",) * len(channels),
            layers_per_block=2,
            sample_size=IMAGE_SIZE,
            scaling_factor=0.18215,
            force_upcast=True,
        )
        config = CLIPVisionConfig(
            image_size=side * patch,
            patch_size=patch,
            hidden_size=width,
            intermediate_size=shape(f"{visual}transformer.resblocks.0.mlp.c_fc.weight")[0],
            num_hidden_layers=len({m.group(1) for n in shapes if (m := layer.match(n))}),
            num_attention_heads=max(1, width // CLIP_HEAD),
            projection_dim=shape(f"{visual}proj")[1],
            hidden_act="gelu",
            architectures=["CLIPVisionModelWithProjection"],
        )
        clip = CLIPVisionModelWithProjection(config)
    return unet, vae, clip


def _index() -> dict[str, Any]:
    """Return what diffusers reads first of a pipeline."""
    return {
        "_class_name": "GSV3DPipeline",
        "_diffusers_version": diffusers_version,
        "vae": ["diffusers", "AutoencoderKL"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "feature_encoder": [None, None],
        "unet": ["gsv3d.multiview.unet", "SV3DUNetSpatioTemporalConditionModel"],
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "decoder": [None, None],
        "num_inference_steps": NUM_STEPS,
        "max_guidance_scale": MAX_GUIDANCE,
        "orbit": "static",
        "depth_prior": 0.0,
        "framing": FRAMING,
    }


def _shape(source: Path, shapes: dict[str, tuple[int, ...]], name: str) -> tuple[int, ...]:
    if name not in shapes:
        raise ModelError(f"{source} lacks 1 tensor: {name}.", _AGAIN)
    return shapes[name]


def _listed(tensors: Sequence[str | None], most: int = 3) -> str:
    """Say how many there are, and name the first of them."""
    first = ", ".join(map(str, tensors[:most]))
    rest = f" and {len(tensors) - most} more" if len(tensors) > most else ""
    return f"{len(tensors)} tensor{'s' * (len(tensors) > 1)}: {first}{rest}"
