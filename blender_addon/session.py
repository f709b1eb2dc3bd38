# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the add-on: its jobs, the socket thread's events, and one timer.

`Session.drain` is the only way from the network to Blender's data. A timer calls it with a budget
of 8 ms. Where timers do not fire (background mode, Blender as a module), the code that waits calls
it.
Nothing here ever waits for the network.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import bpy

from . import compat, events, preferences, previews
from .backend_link import BackendLink, is_elsewhere
from .delivery import Delivery
from .importers import scene
from .job_control import JobControl
from .jobs import JobBook
from .problems import Problem

OFFLINE = (
    "To use a backend on another computer, turn on Allow Online Access in Preferences > System >"
    " Network."
)
TICK_BUDGET_S = 0.008
_BUSY_S, _ACTIVE_S, _IDLE_S = 0.02, 0.1, 0.5
_log = logging.getLogger(__name__)


class Session:
    """Everything that lasts while the add-on is enabled; use `get`."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.backend = BackendLink(clock)
        self.jobs = JobControl(self.backend, self._changed)
        self._clock = clock
        self._file = ""
        self._shows_later = self._changed_since = False

    @property
    def book(self) -> JobBook:
        return self.jobs.book

    @property
    def delivery(self) -> Delivery:
        return self.jobs.delivery

    # -- what operators ask for -------------------------------------------------------------

    def start_backend(
        self, python: str, connection_file: Path, data_dir: Path, may_start: bool = True
    ) -> None:
        """Use the backend of the connection file; start one if none is there. Returns at once.

        Raises `Problem` when none can be started, or none may be reached.
        """
        if connection_file == preferences.paired_file() or is_elsewhere(connection_file):
            may_start = False
            if not compat.online_access():
                raise Problem("Blender may not go online.", OFFLINE)
        self.backend.start(python, connection_file, data_dir, may_start)
        self.ensure_timer()

    def pair_backend(self, code: str, connection_file: Path) -> None:
        """Pair with the backend on another computer that made a code, and use it.

        Returns at once. Raises `Problem` where it is no code.
        """
        self.backend.pair(code, connection_file)
        self.jobs.wait_for_next_backend()
        self.ensure_timer()

    def stop_backend(self) -> None:
        """Ask the backend we started to end, and leave one that we did not. Returns at once.

        Jobs wait until it is started again.
        """
        self.backend.stop()
        self.jobs.wait_for_next_backend()
        self.ensure_timer()

    def models(self) -> Sequence[events.ModelChoice]:
        """Return the models of the backend; the ones that ship, before it has answered."""
        connected = self.backend.connected
        if connected is None or not connected.models:
            return [events.ModelChoice("blockout")]
        return connected.models

    # -- the one way from the network to Blender --------------------------------------------

    def drain(self, budget_s: float = TICK_BUDGET_S) -> bool:
        """Handle events and import results until nothing is left or ``budget_s`` is spent.

        Returns True if there is more to do now. It does at least one thing, each of which is short.
        """
        end = self._clock() + budget_s
        self._watch_backend()
        changed = False
        while True:
            did = self._take_event() or self._import_step()
            changed = changed or did
            if not did or self._clock() >= end:
                break
        if changed:
            self.show()
        return did

    def _take_event(self) -> bool:
        if self.backend.client is None:
            return False
        try:
            event = self.backend.client.events.get_nowait()
        except queue.Empty:
            return False
        self.handle(event)
        return True

    def _import_step(self) -> bool:
        try:
            return self.delivery.step()
        except Exception as error:  # shown to the artist, and whole in the console
            _log.exception("GSV3D: an import failed")
            job = self.delivery.take_failed()
            if job is not None:
                what = f"Blender could not take the result of {job.name}: {error}."
                self.jobs.fail(job, Problem(what, "The console has the details."))
            return True

    def _watch_backend(self) -> None:
        """Have jobs of a backend that died wait for the next one, which finds its journal."""
        before = self.backend.problem
        problem = self.backend.watch()
        if problem is not None:
            self.jobs.wait_for_next_backend()
        if self.backend.problem is not before:
            self.show()

    def handle(self, event: events.Event) -> None:
        """Take one event from the socket thread."""
        match event:
            case events.Connected():
                self.backend.accepted(event)
                if self.backend.ready:
                    self.jobs.send_all()
            case events.Disconnected(problem=problem, lasting=lasting):
                self.backend.lost(problem, lasting)
                self.jobs.lose_sight()
            case events.BackendComplained(problem=problem):
                self.backend.problem = problem
            case events.Paired(connection_file=connection_file):
                preferences.use_paired(connection_file)
            case events.JobsListed(jobs=entries):
                self.jobs.take_list(entries)
            case _:
                self.jobs.take(event)

    # -- Blender's own events ------------------------------------------------------------------

    def before_undo(self) -> None:
        self.delivery.interrupt()
        scene.forget_places()

    def before_load(self) -> None:
        """Prepare for another file, which may be the same one or may fail to open."""
        self.delivery.interrupt()
        scene.forget_places()
        self._file = bpy.data.filepath

    def after_load(self) -> None:
        """Drop the former file's jobs; in another file the artist chooses where results go."""
        if not self._file or self._file != bpy.data.filepath:
            self.jobs.detach_all()
        self.show()

    @contextlib.contextmanager
    def showing_once(self) -> Iterator[None]:
        """Show what an operator changes at its end: a list of 1,000 jobs takes a moment."""
        self._shows_later, self._changed_since = True, False
        try:
            yield
        finally:
            self._shows_later = False
            if self._changed_since:
                self.show()

    def show(self) -> None:
        """Bring the lists of the interface up to date."""
        rows = [(j.id, j.name, j.state.value, self.jobs.describe(j)) for j in self.book.in_order()]
        show_jobs(rows)
        previews.show(self.jobs.sheets)
        previews.show_pictures(
            {cutout.id: cutout.png for cutout in self.jobs.cutouts if cutout.png}
        )
        compat.redraw_sidebars()

    def _changed(self) -> None:
        self._changed_since = True
        if not self._shows_later:
            self.show()
        self.ensure_timer()

    def ensure_timer(self) -> None:
        """Run the timer while there is something to wait for; never without an interface."""
        if not bpy.app.background and not bpy.app.timers.is_registered(_tick):
            bpy.app.timers.register(_tick, first_interval=_BUSY_S, persistent=True)

    def interval(self, more: bool) -> float | None:
        """Return the seconds to the next tick; None ends the timer."""
        if more:
            return _BUSY_S
        cutting = any(not cutout.ended for cutout in self.jobs.cutouts)
        if self.book.active() or cutting or not self.delivery.idle:
            return _ACTIVE_S
        at_work = self.backend.client is not None or self.backend.process.running
        return _IDLE_S if at_work else None

    def close(self, wait: bool = False) -> None:
        """End timer and thread, and the backend as in `BackendLink.close`."""
        if bpy.app.timers.is_registered(_tick):
            bpy.app.timers.unregister(_tick)
        self.backend.close(wait)
        self.delivery.interrupt()


_session: Session | None = None


def get() -> Session:
    """Return the session of this add-on; make it at first use."""
    global _session
    if _session is None:
        _session = Session()
    return _session


def close(wait: bool = False) -> None:
    """End the session and everything it runs; ``wait`` until the backend has ended."""
    global _session
    if _session is not None:
        _session.close(wait)
        _session = None


def _tick() -> float | None:
    session = get()
    try:
        return session.interval(session.drain())
    except Exception:  # a timer that raises is silently removed; say it and go on
        _log.exception("GSV3D: an event could not be handled")
        return _IDLE_S


def show_jobs(wanted: Sequence[tuple[str, str, str, str]]) -> None:
    """Write the list of jobs into the window manager, only where it changed.

    Rows are the id, the name, the state and a line of text.
    """
    manager = bpy.context.window_manager
    runtime = getattr(manager, "gsv3d", None) if manager else None
    if runtime is None:
        return
    selected = (
        runtime.jobs[runtime.job_index].job_id if 0 <= runtime.job_index < len(runtime.jobs) else ""
    )
    if [row.job_id for row in runtime.jobs] != [w[0] for w in wanted]:
        first_was_selected = runtime.job_index == 0
        runtime.jobs.clear()
        for _ in wanted:
            runtime.jobs.add()
        ids = [w[0] for w in wanted]
        keep = selected in ids and not first_was_selected
        runtime.job_index = ids.index(selected) if keep else 0
    for row, (job_id, name, state, text) in zip(runtime.jobs, wanted, strict=True):
        if (row.job_id, row.name, row.state, row.text) != (job_id, name, state, text):
            row.job_id, row.name, row.state, row.text = job_id, name, state, text
