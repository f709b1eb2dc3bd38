# SPDX-License-Identifier: Apache-2.0
"""Start and end the workers, one for each device, and give them the jobs of one queue."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .clients import Clients
from .job import Job
from .jobs import Jobs
from .protocol import PROTOCOL_VERSION
from .protocol import messages as m
from .settings import Settings
from .store import Store
from .work import Work
from .worker_process import STOP_S, Worker, WorkerSocket, default_command

log = logging.getLogger(__name__)


class Workers:
    """Runs all workers of a backend.

    The first one tells which devices there are; those after it are started while there are more
    jobs than workers. A worker that has had no job for long is ended. A job goes to a device with
    the memory its model needs or, where none has as much, to one of those that have the most.
    """

    def __init__(
        self,
        link: WorkerSocket,
        jobs: Jobs,
        store: Store,
        clients: Clients,
        settings: Settings,
        log_dir: Path,
    ) -> None:
        self.all: list[Work] = []
        self._link = link
        self._jobs = jobs
        self._store = store
        self._clients = clients
        self._settings = settings
        self._log_dir = log_dir
        self._introduced = False  # devices and models are known, as they are now
        self._needs: dict[str, int] = {}  # bytes of memory by the model's name
        self._engage([settings.device], 1)

    def _engage(self, devices: Sequence[str], count: int) -> None:
        """Add workers until there are enough, each with one of the devices in turn."""
        settings = self._settings
        base = settings.worker_command or default_command(
            settings.text_model, settings.threads, settings.memory, settings.ray
        )
        share = settings.workers or count
        for number in range(len(self.all), count):
            command = [*base, "--device", devices[number % len(devices)], f"--share={share}"]
            worker = Worker(self._link, command, self._log_dir, number)
            self.all.append(Work(worker, self._jobs, self._store, self._clients, settings))
        self._jobs.slots = len(self.all)

    # --- every turn ------------------------------------------------------------------------------

    def turn(self, now: float) -> None:
        """Act on what the workers say, hand out jobs, start and end processes."""
        for address, message in self._link.receive():
            for work in self.all:
                if work.worker.takes(address, message):
                    self._guard(work, lambda w=work, said=message: self._hear(w, said, now))
        for work in self.all:
            self._guard(work, lambda w=work: w.watch(now))
        self._hand_out(now)
        self._staff(now)
        if all(work.worker.given_up for work in self.all):
            self._give_up()

    def _hear(self, work: Work, message: dict[str, Any], now: float) -> None:
        work.take(message, now)
        if message["type"] in ("ready", "models"):
            self._introduce(message)

    def _guard(self, work: Work, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # a fault of ours ends one job, not the backend
            work.fault(error)

    def _hand_out(self, now: float) -> None:
        """Give waiting jobs to free workers.

        A worker that has the model loaded comes first, then the smallest sufficient device.
        """
        for job in self._jobs.waiting():
            if not any(work.free for work in self.all):
                return
            fit = [work for work in self._fit_for(job) if work.free]
            if fit:
                chosen = min(fit, key=lambda w, j=job: (w.model != j.record.model, w.memory))
                self._guard(chosen, lambda w=chosen, j=job: w.begin(j, now))

    def _fit_for(self, job: Job) -> list[Work]:
        """Return the workers that may do a job: all whose devices are large enough, if any is.

        A worker that has not told its memory yet may do any job.
        """
        sound = [work for work in self.all if not work.worker.given_up]
        needed = self._needs.get(job.record.model, 0) if job.record.kind == "submit" else 0
        if not any(work.memory is None or work.memory >= needed for work in sound):
            needed = max((work.memory or 0 for work in sound), default=0)
        return [work for work in sound if work.memory is None or work.memory >= needed]

    def _staff(self, now: float) -> None:
        """Start as many processes as there are jobs for, and let go of those without."""
        idle = [work for work in self.all if work.job is None]
        for fit in self._wanted():
            if not idle:
                break
            fit = [work for work in fit if work in idle]
            coming = [work for work in fit if work.worker.alive and not work.worker.ending]
            startable = [work for work in fit if work.worker.may_start(now)]
            if coming or startable:
                chosen = (coming or startable)[0]
                if not coming:
                    chosen.start_process(now)
                chosen.rest(now, wanted=True)
                idle.remove(chosen)
        for work in idle:
            work.rest(now, wanted=False)

    def _wanted(self) -> Iterator[list[Work]]:
        """Yield, for each process that is wanted, the workers that may start it."""
        waiting = self._jobs.waiting()
        if not waiting and not self._introduced:
            yield self.all
        yield from map(self._fit_for, waiting)

    def _give_up(self) -> None:
        """Tell all who wait that every process dies; a new job starts one once more."""
        what, hint = self.all[0].broken or (
            "The worker process ends again and again.",
            "The logs in the backend's data folder say more.",
        )
        for job in self._jobs.waiting():
            failed = m.Failed(
                job.id, f"{job.name} cannot be generated: the model does not run.", what, hint
            )
            self._clients.tell_end(job, failed)
            self._jobs.fail(job, failed.what, failed.why, failed.hint)

    def _introduce(self, message: dict[str, Any]) -> None:
        """Note what a worker tells of devices and models, and tell the clients."""
        self._introduced = True
        if message["type"] == "ready":
            devices = [str(device) for device in message["devices"]]
            self._engage(devices, self._settings.workers or len(devices))
        self._needs = {entry["name"]: int(entry.get("needs", 0)) for entry in message["models"]}
        models = m.Welcome(PROTOCOL_VERSION, "", message["models"]).models
        log.info("models: %s", ", ".join(entry.name for entry in models))
        named = dict.fromkeys(work.device for work in self.all if work.device)
        self._clients.introduce(", ".join(named)[:128], models)

    # --- what clients ask for --------------------------------------------------------------------

    def wake(self) -> None:
        """Start a process if there is none, for a client that may have jobs soon."""
        if not any(work.worker.alive and not work.worker.ending for work in self.all):
            self._introduced = False

    def try_again(self) -> None:
        """Start processes that kept ending once more, for a new job."""
        for work in self.all:
            work.worker.try_again()

    def cancel(self, job: Job, now: float) -> None:
        """Stop a job that is under way."""
        for work in self.all:
            if work.job is job:
                work.cancel(job, now)

    def free_memory(self, now: float) -> None:
        """End the workers without a job."""
        for work in self.all:
            work.free_memory(now)

    def forgive(self, seconds: float) -> None:
        """Do not count a time in which nothing was heard from the workers."""
        for work in self.all:
            work.forgive(seconds)

    def close(self) -> None:
        """End all processes; the jobs under way wait for the next start."""
        for work in self.all:
            work.worker.send("stop")  # to all before the first is waited for
        end = time.monotonic() + STOP_S
        for work in self.all:
            work.interrupt(max(0.0, end - time.monotonic()))
