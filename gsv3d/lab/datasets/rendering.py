# SPDX-License-Identifier: Apache-2.0
"""Render orbits of objects with several Blender processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gsv3d._version import __version__
from gsv3d.cameras import orbit, to_blender
from gsv3d.clusters import run_on_ray
from gsv3d.errors import DataError
from gsv3d.lab.datasets.light import encode_straight_srgb
from gsv3d.lab.datasets.objects import ObjectFile
from gsv3d.lab.datasets.orbits import OrbitRecord, OrbitSettings, normalizing_transform, plan_orbit
from gsv3d.lab.datasets.shards import ShardFolder, name_group, write_record
from gsv3d.lab.processes import (
    prepare_worker,
    run_in_processes,
    silence_standard_output,
)
from gsv3d.tasks import Outcome

if TYPE_CHECKING:
    from gsv3d.lab.datasets.blender_scene import View


@dataclass(frozen=True)
class Rendered:
    """One finished object.

    Attributes:
        tar: bytes of ``gsv3d.lab.datasets.shards.write_record``.
        remarks: sentences on faults of the file, for its maker.
    """

    tar: bytes
    remarks: tuple[str, ...] = ()


class ObjectRenderer:
    """A callable that renders the orbits of one object after the other in this process."""

    def __init__(self, settings: OrbitSettings) -> None:
        prepare_worker()
        silence_standard_output(errors=True)
        from gsv3d.lab.datasets.blender_scene import BlenderScene

        self._settings = settings
        self._scene = BlenderScene(
            settings.size,
            settings.samples,
            settings.fov_deg,
            engine=settings.engine,
            normals=settings.normals is not None,
        )
        if settings.engine == "eevee":
            # Without a GPU or EGL the process dies: better now than later.
            self._scene.render_view(np.eye(4))

    def __call__(self, source: ObjectFile) -> Rendered:
        """Render one object.

        Raises:
            DataError: the object cannot be rendered; says why.
        """
        try:
            record = self._render(source)
            return Rendered(write_record(record), tuple(_list_remarks(source.path, record)))
        except ValueError as error:
            raise DataError(f"{source.path}: {error}.") from error
        finally:
            self._scene.clear()

    def _render(self, source: ObjectFile) -> OrbitRecord:
        settings, scene = self._settings, self._scene
        if not source.path.is_file():
            raise ValueError("there is no such file")
        plan = plan_orbit(settings, source.name)
        cameras = orbit(
            plan.azimuths_deg.tolist(),
            plan.elevations_deg.tolist(),
            size=settings.size,
            distance=settings.distance,
            fov_deg=settings.fov_deg,
        )
        viewmats = cameras.viewmats.numpy()
        points = scene.load(source.path)
        transform, scale = normalizing_transform(points, plan.yaw_deg, viewmats, settings.fov_deg)
        scene.place(transform)
        if settings.light == "flat":
            light = scene.world.light_flat()
        else:
            light = scene.world.light_hdri(plan.light_choice, plan.light_yaw_deg)
        colored = settings.random_colors and scene.color_if_plain(plan.hsv)
        if settings.materials == "matt":
            scene.make_matt()
        views = [scene.render_view(to_blender(viewmat)) for viewmat in viewmats]
        rgba = np.stack([encode_straight_srgb(view.rgba) for view in views])
        if not rgba[..., 3].any():
            raise ValueError("nothing of it is visible in any view")
        origin = {"file": source.path.name, "pack": source.pack, "split": source.split,
                  "license": source.license, "author": source.author}  # fmt: skip
        return OrbitRecord(
            name=source.name,
            rgba=rgba,
            depth=np.stack([view.depth for view in views]),
            azimuths_deg=plan.azimuths_deg,
            elevations_deg=plan.elevations_deg,
            viewmats=viewmats,
            intrinsics=cameras.Ks[0].numpy(),
            num_orbit=settings.orbit_views,
            orbit=settings.orbit,
            distance=settings.distance,
            fov_deg=settings.fov_deg,
            transform=transform,
            normals=_collect_normals(views, viewmats, settings.normals),
            normal_axes=settings.normals,
            background=plan.background,
            source={name: fact for name, fact in origin.items() if fact},
            render={
                "gsv3d": __version__,
                "engine": settings.engine,
                "samples": settings.samples,
                "seed": settings.seed,
                "light": light,
                "light_yaw_deg": plan.light_yaw_deg if settings.light == "hdri" else 0.0,
                "materials": settings.materials,
                "given_color": colored,
                "scale": scale,
                "yaw_deg": plan.yaw_deg,
            },
            missing_textures=tuple(scene.missing_textures),
            frame=scene.frame,
        )


def _collect_normals(
    views: Sequence[View], viewmats: np.ndarray, axes: str | None
) -> np.ndarray | None:
    if axes is None:
        return None
    normals = np.stack([view.normals for view in views if view.normals is not None])
    if axes == "camera":
        normals = np.einsum("vij,vhwj->vhwi", viewmats[:, :3, :3], normals)
    return normals.astype(np.float32)


def _list_remarks(path: Path, record: OrbitRecord) -> Iterator[str]:
    if record.missing_textures:
        names = ", ".join(record.missing_textures)
        yield f"{path}: rendered without textures that are missing: {names}."
    if record.frame is not None:
        yield f"{path}: it is animated; rendered at its first frame, {record.frame}."


def render_orbits(
    objects: Sequence[ObjectFile],
    settings: OrbitSettings,
    folder: ShardFolder,
    workers: int | None,
    ray_address: str | None = None,
) -> Iterator[Outcome]:
    """Render objects into a folder of shards with several processes, in the order given.

    Args:
        objects: objects to render.
        settings: settings of all objects.
        folder: folder that each finished object is added to.
        workers: number of processes, on all machines together; None with Ray: its number of CPUs.
        ray_address: address of a Ray cluster; None to render on this machine.

    Yields:
        An outcome for each object as it ends: the remarks on it, or the reason of a failure, which
        does not stop the others.

    Raises:
        GSV3DError: the processes cannot start, the cluster cannot be reached, or the output cannot
            be written.
    """
    make_renderer = partial(ObjectRenderer, settings)
    hint = ""
    if settings.engine == "eevee":
        hint = "EEVEE needs a GPU or EGL, which this machine lacks; render with cycles."
    if ray_address is not None:
        outcomes = run_on_ray(make_renderer, objects, ray_address, workers, hint)
    else:
        outcomes = run_in_processes(make_renderer, objects, workers or 1, hint)
    with contextlib.closing(outcomes):
        for outcome in outcomes:
            if outcome.error is None:
                item = objects[outcome.index]
                folder.add(name_group(item.split, item.pack), item.name, outcome.value.tar)
                outcome = replace(outcome, value=outcome.value.remarks)
            yield outcome


def shuffle(objects: Sequence[ObjectFile], seed: int) -> list[ObjectFile]:
    """Put objects in a random order that the seed fixes: the first N are a fair sample."""
    order = np.random.default_rng([seed, 7]).permutation(len(objects))
    return [objects[i] for i in order]
