# SPDX-License-Identifier: Apache-2.0
"""Run the model's jobs: what the worker process does. The only part that holds gsv3d and torch."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import BackendError
from .worker_runtime import JobStoppedError, Watch

if TYPE_CHECKING:
    from gsv3d.gaussians import Gaussians
    from gsv3d.pose import PoseEstimate
    from gsv3d.preprocessing import PreparedImage


class _Observer:
    """Observe gsv3d's pipeline: pass everything to the link, and stop the pipeline when told to."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._phase = ""
        self.box: dict[str, float] = {}

    def progress(self, phase: str, step: int, of: int) -> None:
        self._phase = phase
        self._tell(lambda: self._watch.progress(phase, step, of))

    def prepared(self, picture: PreparedImage) -> None:
        names = ("left", "top", "right", "bottom")
        self.box = {name: float(v) for name, v in zip(names, picture.box, strict=True)}

    def views(self, images: np.ndarray, azimuths_deg: np.ndarray) -> None:
        # Previews come while denoising; what comes after is final.
        final = self._phase != "denoising"
        values = {"images": images, "azimuths": np.asarray(azimuths_deg, np.float32)}
        self._tell(lambda: self._watch.artifact("views", values, final=final))

    def gaussians(self, gaussians: Gaussians, step: int, of: int, final: bool) -> None:
        # Previews need half precision only.
        values = gaussian_arrays(gaussians, np.float32 if final else np.float16)
        told = {"step": step, "of": of, "final": final, "box": self.box}
        self._tell(lambda: self._watch.artifact("gaussians", values, **told))

    @staticmethod
    def _tell(call: Callable[[], None]) -> None:
        from gsv3d.errors import Cancelled

        try:
            call()
        except JobStoppedError as error:
            raise Cancelled from error


def gaussian_arrays(gaussians: Gaussians, sh_type: type = np.float32) -> dict[str, np.ndarray]:
    """Return Gaussians as the wire has them: linear scales and opacities, quaternions wxyz."""
    values = gaussians.numpy()
    arrays = {name: np.asarray(values[name], np.float32) for name in ("means", "quats", "scales")}
    arrays["opacities"] = np.clip(np.asarray(values["opacities"], np.float32).reshape(-1), 0, 1)
    arrays["sh"] = np.asarray(values["sh"], sh_type)
    return arrays


def pose_numbers(pose: PoseEstimate) -> dict[str, float]:
    """Return a pose as the wire has it, without what is unknown or unused."""
    numbers = {
        "elevation": pose.elevation_deg,
        "elevation_error": pose.elevation_error_deg,
        "plane": pose.plane_azimuth_deg,
        "plane_score": pose.plane_score,
    }
    return {name: float(value) for name, value in numbers.items() if value is not None}


class ModelRunner:
    """Runs gsv3d's generation; keeps the last used model loaded, and no other beside it.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N".
        text_model: the text-to-image model of jobs that name none.
        memory: "auto", "24", "12" or "8" GB of the card's memory that a model may take.
        share: workers that share the computer.
    """

    def __init__(
        self, device: str, text_model: str = "", memory: str = "auto", share: int = 1
    ) -> None:
        # Large modules are imported before the worker says that it is ready.
        from gsv3d.threads import pause_collecting

        with pause_collecting():
            from gsv3d import generation, models, pipeline, preprocessing  # noqa: F401
            from gsv3d.devices import choose_device

        self._asked, self._memory, self._share = device, memory, share
        self._device = str(choose_device(device))
        self._text_model = text_model
        self._name = ""
        self._pipeline: Any = None
        self._texture_size = 0  # of the job under way

    def describe(self) -> tuple[str, list[dict[str, Any]]]:
        import torch

        from gsv3d.models import available, memory_for

        device = self._device
        if device.startswith("cuda"):
            device = f"{torch.cuda.get_device_name(device)} ({device})"
        models = [
            {
                "name": info.name,
                "installed": info.installed,
                "description": _on_a_line(info.description),
                "how_to_get": _on_a_line(info.how_to_get),
                "decoder": info.decoder,
                "license": _on_a_line(info.license),
                "change": info.change,
                "needs": memory_for(info),
            }
            for info in available()[:64]
        ]
        return device, models

    def memory(self) -> int:
        import psutil
        import torch

        if self._device == "cpu":
            return psutil.virtual_memory().total // self._share
        return torch.cuda.get_device_properties(self._device).total_memory

    def devices(self) -> list[str]:
        import torch

        if self._device == "cpu":
            return [self._asked]
        if self._device != "cuda":  # one card by its number
            return [self._device]
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())]

    def run(self, settings: Mapping[str, Any], picture: bytes, watch: Watch) -> dict[str, float]:
        self._texture_size = settings.get("texture_size", 0)
        make = {"imagine": self._imagine, "cutout": self._cut_out}
        try:
            return make.get(settings.get("kind", ""), self._generate)(settings, picture, watch)
        except JobStoppedError:
            pass  # its traceback would keep the arrays of the job
        from gsv3d.text_to_image import free_memory

        free_memory()
        raise JobStoppedError

    def _cut_out(
        self, settings: Mapping[str, Any], picture: bytes, watch: Watch
    ) -> dict[str, float]:
        """Cut the object out of a picture."""
        from gsv3d.preprocessing import cut_out, load_image
        from gsv3d.tasks import Clock

        clock = Clock()
        clock.enter("cutting")
        watch.progress("cutting", 0, 1)
        found = cut_out(load_image(picture, settings.get("filename") or "the picture"))
        watch.progress("cutting", 1, 1)
        data = np.frombuffer(found.to_png(), np.uint8)
        watch.artifact("file", {"data": data}, name="png", certainty=found.certainty)
        return clock.stop()

    def _imagine(
        self, settings: Mapping[str, Any], _picture: bytes, watch: Watch
    ) -> dict[str, float]:
        """Make a reference of words."""
        from gsv3d import text_to_image
        from gsv3d.errors import Cancelled

        try:
            names = ("prompt", "seed", "steps", "guidance")
            chosen = text_to_image.ImagineSettings(**{name: settings[name] for name in names})
        except ValueError as error:
            raise BackendError(
                f"The picture cannot be made: {error}", "Change that and try again."
            ) from error
        folder = text_to_image.find_text_model(settings["text_model"] or self._text_model)
        pipeline = self._keep(
            f"words: {folder}",
            lambda: text_to_image.load_text_pipeline(folder, self._device),
            watch,
        )
        try:
            made = text_to_image.imagine(pipeline, chosen, _Observer(watch).progress)
        except Cancelled as error:
            raise JobStoppedError from error
        watch.artifact("file", {"data": np.frombuffer(made.png, np.uint8)}, name="png")
        return made.timings

    def _generate(
        self, settings: Mapping[str, Any], picture: bytes, watch: Watch
    ) -> dict[str, float]:
        """Make Gaussians and a mesh of a picture."""
        from gsv3d.errors import Cancelled
        from gsv3d.generation import generate
        from gsv3d.meshing.export import to_glb_bytes
        from gsv3d.models import INDEX, find, load_pipeline
        from gsv3d.preprocessing import load_image
        from gsv3d.settings import GenerationSettings

        names = ("steps", "seed", "faces", "texture_size", "elevation", "previews")
        # Jobs journaled by an older backend lack some settings.
        mirror = settings.get("mirror", "off")
        if mirror == "plane":
            mirror = settings["plane"]
        orbit = settings.get("orbit", "model")
        try:
            chosen = GenerationSettings(
                **{n: settings[n] for n in names},
                mirror=mirror,
                orbit=None if orbit == "model" else orbit,
                frames=settings.get("frames"),
                azimuths=tuple(settings.get("azimuths", ())) or None,
                elevations=tuple(settings.get("elevations", ())) or None,
                refine=settings.get("refine", False),
            )
        except ValueError as error:
            raise BackendError(
                f"The job's settings cannot be used: {error}", "Change them and try again."
            ) from error
        label = settings.get("filename") or "the picture"
        image = load_image(picture, label)
        name = settings["model"]
        # Another model may have been given the name since.
        written = (find(name) / INDEX).stat().st_mtime_ns
        pipeline = self._keep(
            f"{name} {written}", lambda: load_pipeline(name, self._asked, self._memory), watch
        )
        observer = _Observer(watch)
        try:
            result = generate(pipeline, image, chosen, observer)
        except Cancelled as error:
            raise JobStoppedError from error
        mesh = result.mesh
        arrays = {
            "vertices": np.asarray(mesh.vertices, np.float32),
            "faces": np.asarray(mesh.faces, np.int32),
            "corner_uvs": np.asarray(mesh.corner_uvs, np.float32),
            "texture": np.asarray(mesh.texture[..., :3], np.uint8),
        }
        if mesh.clipped:
            arrays["alpha"] = mesh.texture[..., 3]
        watch.artifact(
            "mesh",
            arrays,
            certainty=result.certainty,
            pose=pose_numbers(result.pose),
            box=observer.box,
        )
        for name in settings["files"]:
            data = to_glb_bytes(mesh) if name == "glb" else _ply(result.gaussians)
            watch.artifact("file", {"data": np.frombuffer(data, np.uint8)}, name=name)
        return result.timings

    def explain(self, error: BaseException) -> tuple[str, str, str] | None:
        from gsv3d.errors import GSV3DError, out_of_memory

        if isinstance(error, GSV3DError):
            return error.message, "", error.hint
        told = out_of_memory(error, self._texture_size)
        if told is None:
            return None
        self._free()
        return told.message, (str(error).splitlines() or [""])[0], told.hint

    def _keep(self, name: str, load: Callable[[], Any], watch: Watch) -> Any:
        """Load a pipeline and keep it, after the last one was dropped: a card has room for one."""
        if self._pipeline is None or name != self._name:
            watch.progress("loading", 0, 1)
            self._free()
            self._pipeline, self._name = load(), name
            watch.progress("loading", 1, 1)
        return self._pipeline

    def _free(self) -> None:
        from gsv3d.text_to_image import free_memory

        self._pipeline, self._name = None, ""
        free_memory()


def _on_a_line(text: str) -> str:
    """Return a text of a model's folder on one line, so short that a message holds 64 models."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:300]


def _ply(gaussians: Gaussians) -> bytes:
    file = io.BytesIO()
    gaussians.save_ply(file)
    return file.getvalue()


def _give_way() -> None:
    """Lower the priority of this process below that of Blender and other programs."""
    import psutil

    process = psutil.Process()
    # A process that was started with a lower priority may not raise it.
    low = psutil.BELOW_NORMAL_PRIORITY_CLASS if psutil.WINDOWS else max(process.nice(), 5)
    process.nice(low)


def make_runner(options: argparse.Namespace) -> ModelRunner:
    """Return what runs the model, in this process, which gives way to others."""
    _give_way()
    return ModelRunner(options.device, options.text_model, options.memory, options.share)
