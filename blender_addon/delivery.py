# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring results into the scene; each arrival is a generator of short steps.

Work waits while Blender renders or bakes, and while the artist moves something or is in another
mode than Object Mode. Undo and file loading replace all Blender data. Work that is under way is
closed before them, and where it has to wait, and is begun again afterward; the arrays are kept
until the job is over.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from . import compat
from .importers import scene
from .importers.gaussians import build_gaussians, import_gaussians, show_gaussians
from .importers.mesh import import_mesh
from .importers.picture import import_picture
from .importers.placement import Fit, fit_to_height, fit_to_size, free_spot, grid_positions
from .importers.prepare import GaussianArrays, MeshArrays
from .jobs import Job, JobBook
from .requests import Target

Work = Generator[None, None, None]


@dataclass
class Arrived:
    """What a job has brought so far."""

    gaussians: GaussianArrays | None = None
    mesh: MeshArrays | None = None
    picture: bytes | None = None
    box: dict[str, float] = field(default_factory=dict)

    def fit(self, target: Target) -> Fit | None:
        """Return the object's fit, from its mesh or, before that has come, from its Gaussians."""
        source = self.mesh or self.gaussians
        if source is None:
            return None
        if target.height is None and target.plane is not None:
            return fit_to_size(source.bounds, target.plane.size_of(self.box))
        return fit_to_height(source.bounds, target.height or 1.0)

    def size(self, target: Target) -> tuple[float, float, float]:
        """Return the object's width, depth and height, or the wished ones before it has come."""
        source, fit = self.mesh or self.gaussians, self.fit(target)
        if source is None or fit is None:
            return (target.height or 1.0,) * 3
        bounds = source.bounds
        return bounds.width * fit.scale, bounds.depth * fit.scale, bounds.height * fit.scale

    def place(self, target: Target) -> Target:
        """Return the target, located before its picture where that is in the scene."""
        if target.plane is None:
            return target
        return replace(target, location=target.plane.base_of(self.box, self.size(target)[1]))


class Delivery:
    """The queue of imports, which `step` does a step at a time."""

    def __init__(self, book: JobBook, on_delivered: Callable[[Job], None]) -> None:
        self._book = book
        self._on_delivered = on_delivered
        self._queue: deque[tuple[str, str]] = deque()
        self._under_way: tuple[str, str, Work] | None = None
        self._unwanted: set[str] = set()
        self.arrived: dict[str, Arrived] = {}
        self.holdup = ""

    def gaussians(self, job: Job, arrays: GaussianArrays, box: dict[str, float]) -> None:
        """Show Gaussians of a job; they replace those that wait to be shown."""
        held = self.arrived.setdefault(job.id, Arrived())
        held.gaussians, held.box = arrays, box
        self._ask(job.id, scene.GAUSSIANS)

    def mesh(self, job: Job, arrays: MeshArrays, box: dict[str, float]) -> None:
        held = self.arrived.setdefault(job.id, Arrived())
        held.mesh, held.box = arrays, box
        self._ask(job.id, scene.MESH)

    def picture(self, job: Job, png: bytes) -> None:
        """Add the picture of a job of words to the file."""
        self.arrived.setdefault(job.id, Arrived()).picture = png
        self._ask(job.id, scene.PICTURE)

    def has_result(self, job_id: str) -> bool:
        """Return True when what a job is for has arrived: its mesh, or its picture."""
        held = self.arrived.get(job_id)
        return held is not None and (held.mesh is not None or held.picture is not None)

    def pending(self, job_id: str) -> bool:
        """Return True while something of a job is still on its way into the scene."""
        under_way = self._under_way is not None and self._under_way[0] == job_id
        return under_way or any(queued == job_id for queued, _ in self._queue)

    @property
    def idle(self) -> bool:
        return self._under_way is None and not self._queue and not self._unwanted

    def forget(self, job_id: str) -> None:
        """Let go of a job's arrays and of what waits to be imported."""
        if self._under_way is not None and self._under_way[0] == job_id:
            self._under_way[2].close()
            self._under_way = None
        self._queue = deque(entry for entry in self._queue if entry[0] != job_id)
        self.arrived.pop(job_id, None)

    def remove_preview(self, job_id: str) -> None:
        """Take the Gaussians of a job that brought no mesh out of the scene, when that may be done.

        To remove what the artist is moving would end Blender.
        """
        if scene.find_object(job_id, scene.GAUSSIANS) is not None:
            self._unwanted.add(job_id)

    def remove_preview_now(self, job_id: str) -> None:
        """Do as `remove_preview`, whatever the artist does."""
        preview = scene.find_object(job_id, scene.GAUSSIANS)
        if preview is not None and scene.find_object(job_id, scene.MESH) is None:
            scene.remove(preview)

    def interrupt(self) -> None:
        """Stop work under way and begin it again later, since its data goes away."""
        if self._under_way is not None:
            job_id, kind, work = self._under_way
            self._under_way = None
            work.close()
            self._queue.appendleft((job_id, kind))

    def step(self) -> bool:
        """Do one short piece of work; False when there is none to do now."""
        self.holdup = "" if self.idle else compat.may_edit()
        if self.holdup:
            self.interrupt()
        if self.holdup or self.idle:
            return False
        if self._unwanted:
            self.remove_preview_now(self._unwanted.pop())
            return True
        if self._under_way is None:
            job_id, kind = self._queue.popleft()
            job = self._book.get(job_id)
            if job is None or job.detached or job_id not in self.arrived:
                return True
            self._under_way = (job_id, kind, self._deliver(job, kind))
        job_id, kind, work = self._under_way
        try:
            next(work)
        except AttributeError as error:
            if not compat.is_write_refused(error):
                raise
            self.interrupt()
            self.holdup = "waiting for Blender to end what it does"
            return False
        except StopIteration:
            self._under_way = None
            job = self._book.get(job_id)
            if job is not None:
                self._on_delivered(job)
        return True

    def take_failed(self) -> Job | None:
        """Return the job whose work failed in `step`, and end that work."""
        if self._under_way is None:
            return None
        job_id, _, work = self._under_way
        self._under_way = None
        work.close()
        return self._book.get(job_id)

    def _ask(self, job_id: str, kind: str) -> None:
        job = self._book.get(job_id)
        if job is None or job.detached:
            return
        self._unwanted.discard(job_id)
        if self._under_way is not None and self._under_way[:2] == (job_id, kind):
            self._under_way[2].close()
            self._under_way = None
        if (job_id, kind) not in self._queue:
            self._queue.append((job_id, kind))

    def _deliver(self, job: Job, kind: str) -> Work:
        held = self.arrived[job.id]
        if kind == scene.PICTURE and held.picture is not None:
            yield from import_picture(held.picture, job)
            compat.push_undo(f"GSV3D: picture of {job.name}")
            return
        fit = held.fit(job.target)
        if fit is None:
            return
        target = self._beside(job, held.place(job.target), held.size(job.target))
        if kind == scene.GAUSSIANS and held.gaussians is not None:
            yield from import_gaussians(held.gaussians, job.id, target, fit)
            self._arrange(job)  # no undo step of their own: the mesh's takes all away
        elif kind == scene.MESH and held.mesh is not None:
            yield from self._deliver_mesh(job, held.mesh, held.gaussians, target, fit)

    def _deliver_mesh(
        self,
        job: Job,
        mesh: MeshArrays,
        gaussians: GaussianArrays | None,
        target: Target,
        fit: Fit,
    ) -> Work:
        """Show a job's mesh, and its Gaussians at the same place, all in the last step."""
        cloud = None
        if gaussians is not None and job.target.after_mesh != "REMOVE":
            cloud = yield from build_gaussians(gaussians, job.id, target.name, fit)
        try:
            made = yield from import_mesh(mesh, job.id, target, fit)
            if gaussians is not None and cloud is not None:
                show_gaussians(cloud, gaussians, job.id, target)
        finally:
            if cloud is not None:
                scene.remove_unused(cloud)
        self._arrange(job)
        self._settle_gaussians(job)
        if not job.target.batch:
            with compat.interface_override():
                scene.select_alone(made)
        compat.push_undo(f"GSV3D: {job.name}")

    def _beside(self, job: Job, target: Target, size: Sequence[float]) -> Target:
        """Return the target moved beside what stands there, when its first object is placed.

        Before its picture a result makes room for others of the same picture, at the cursor for
        every object. A folder's batch arranges its own results.
        """
        in_grid = target.batch and target.plane is None
        known = any(scene.find_object(job.id, kind) for kind in (scene.GAUSSIANS, scene.MESH))
        if in_grid or known or target.replaces:
            return target
        if target.plane is None:
            boxes = scene.boxes_in(scene.scene_of(target))
        else:
            boxes = scene.boxes_of(scene.results_of(target, job.id))
        along = (1.0, 0.0, 0.0) if target.plane is None else target.plane.right
        return replace(target, location=free_spot(target.location, along, size, boxes))

    def _settle_gaussians(self, job: Job) -> None:
        cloud = scene.find_object(job.id, scene.GAUSSIANS)
        wish = job.target.after_mesh
        if cloud is None or wish == "SHOW":
            return
        if wish == "REMOVE":
            scene.remove(cloud)
            return
        cloud.hide_render = True
        cloud.hide_viewport = True  # unless there is an eye in the outliner, where artists look
        for layer in (layer for one in cloud.users_scene for layer in one.view_layers):
            with contextlib.suppress(RuntimeError):  # not in this view layer
                cloud.hide_set(True, view_layer=layer)
                cloud.hide_viewport = False

    def _arrange(self, job: Job) -> None:
        """Set the objects of a batch in rows; what the artist has moved or locked stays."""
        if not job.target.batch or job.target.plane is not None:
            return
        members = [
            j
            for j in self._book.of_batch(job.target.batch)
            if j.state.active or j.id in self.arrived or scene.find_object(j.id, scene.MESH)
        ]
        spots = grid_positions(
            [self._footprint(j) for j in members], (job.target.height or 1.0) * 0.25
        )
        for member, (x, y) in zip(members, spots, strict=True):
            for kind in (scene.GAUSSIANS, scene.MESH):
                placed = scene.find_object(member.id, kind)
                if placed is not None:
                    base = member.target.location
                    _move_unless_moved(placed, (base[0] + x, base[1] + y, base[2]), base)

    def _footprint(self, job: Job) -> tuple[float, float]:
        held = self.arrived.get(job.id)
        if held is not None:
            job.footprint = held.size(job.target)[:2]
        return job.footprint or (job.target.height or 1.0, job.target.height or 1.0)


def _move_unless_moved(
    placed: Any, to: tuple[float, float, float], base: tuple[float, float, float]
) -> None:
    before = tuple(placed.get(scene.PLACE_TAG, base))
    if any(placed.lock_location):
        return
    same = functools.partial(math.isclose, rel_tol=1e-6, abs_tol=1e-4)  # locations have 32 bits
    if all(map(same, placed.location, before)):
        placed.location = to
        placed[scene.PLACE_TAG] = to
