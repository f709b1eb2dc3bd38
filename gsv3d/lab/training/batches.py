# SPDX-License-Identifier: Apache-2.0
"""Batches ahead of time: every one a function of (seed, step, part), whoever prepares it.

A run that is resumed, by more or fewer processes or workers, sees the batches it would have seen:
nothing is remembered between them, so there is no state to save.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gsv3d.errors import DataError

AHEAD = 2
"""Batches that wait for the loop, for every worker."""
LOST_WORKERS = 3
"""Times that workers are started anew without a batch from them in between."""


class Source(Protocol):
    """A source of batches; picklable when workers are used."""

    def draw(self, size: int, seed: int, progress: float) -> Any:
        """Draw one batch, on the CPU: a function of the arguments alone.

        It is called in another thread or process: it may not use torch's global generator.

        Args:
            size: samples.
            seed: seed of everything random in it.
            progress: share of the run that is done, 0..1, for curricula.
        """


def make_part_seed(seed: int, step: int, part: int) -> int:
    """Return a 63-bit seed for one part of one step's batch, unlike that of any other."""
    # The zero once counted attempts; with it runs of earlier versions go on along their curves.
    state = np.random.SeedSequence([seed, step, part, 0]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def seed_noise(seed: int, device: torch.device) -> None:
    """Seed torch's global generators of the CPU and of a device.

    ``torch.manual_seed`` would do, but on a machine without a card it keeps every call for a card
    that might come.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)


@dataclass(frozen=True)
class Plan:
    """The batches that a process needs.

    Attributes:
        source: what makes the batches.
        size: samples of a part.
        seed: seed of the run.
        steps: steps of the run.
        parts: parts of a step's batch for every process.
        processes: processes that train together.
        process: this one's number, from 0.
        clock: the run's progress where minutes end it; worker processes have it told with every
            batch that they are asked for.
    """

    source: Source
    size: int
    seed: int
    steps: int
    parts: int
    processes: int
    process: int
    clock: Callable[[], float] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"clock": None}

    def part(self, index: int) -> tuple[int, int]:
        """Return step and part of the process's ``index``-th batch since step 0."""
        step, own = divmod(index, self.parts)
        return step, own * self.processes + self.process

    def progress(self, index: int) -> float:
        """Return the share of the run, 0..1, that is done when a batch is asked for."""
        steps = min(1.0, self.part(index)[0] / self.steps)
        return steps if self.clock is None else max(steps, self.clock())

    def ask(self, start: int) -> Iterator[tuple[int, float]]:
        """Yield the indices of batches from ``start`` on, each with the progress of that moment."""
        for index in range(start, len(self)):
            yield index, self.progress(index)

    def __getitem__(self, asked: tuple[int, float]) -> Any:
        """Draw a batch that ``ask`` has asked for."""
        index, progress = asked
        return self.source.draw(self.size, make_part_seed(self.seed, *self.part(index)), progress)

    def __len__(self) -> int:
        return self.steps * self.parts


class Feed:
    """The batches of a plan from a step on, prepared ahead by a thread or by processes.

    Args:
        plan: plan of this process.
        step: to begin with.
        workers: processes; 0 for a thread.
        device: batches are moved to.
        tell: takes a sentence about a lost worker.
    """

    def __init__(
        self,
        plan: Plan,
        step: int,
        workers: int,
        device: torch.device,
        tell: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
    ) -> None:
        self.plan, self.workers, self.device, self.tell = plan, workers, device, tell
        self._next = step * plan.parts
        self._lost = 0
        self._batches: Iterator[Any] = self._start()

    def _start(self) -> Iterator[Any]:
        start = self._next
        if self.workers:
            items: Iterable[Any] = _from_workers(self.plan, start, self.workers)
        else:
            items = (self.plan[asked] for asked in self.plan.ask(start))
        return _ahead(items, pin=self.device.type == "cuda")

    def next(self) -> Any:
        """Return the next batch, on the device.

        Raises:
            DataError: workers keep dying.
        """
        while True:
            try:
                batch = next(self._batches)
                break
            except (RuntimeError, EOFError, OSError) as error:
                # torch names a worker that was killed, by the system for want of memory perhaps;
                # if it dies while its tensors are fetched, the connection to it breaks instead.
                named = not isinstance(error, RuntimeError) or "DataLoader worker" in str(error)
                if not self.workers or not named:
                    raise
                self._recover(error)
        self._next += 1
        self._lost = 0
        return to_device(batch, self.device)

    def _recover(self, error: Exception) -> None:
        self._lost += 1
        first = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        if self._lost > LOST_WORKERS:
            raise DataError(
                f"The processes that prepare batches died {self._lost} times in a row ({first}).",
                "Go on with --resume and fewer workers; 0 prepares batches in a thread.",
            ) from error
        self.tell(f"A process that prepares batches was lost ({first}); new ones take over.")
        self.close()
        self._batches = self._start()

    def close(self) -> None:
        with suppress(RuntimeError):
            self._batches.close()  # type: ignore[attr-defined] - both are generators


def _from_workers(plan: Plan, start: int, workers: int) -> Iterable[Any]:
    from torch.utils.data import DataLoader

    # Spawned, not forked: a fork copies locks that other threads hold.
    return DataLoader(
        plan,  # type: ignore[arg-type] - it has what the loader asks for
        batch_size=None,
        # Asked for in the training process, which has the clock.
        sampler=plan.ask(start),  # type: ignore[arg-type] - all that is done with it is to iterate
        num_workers=workers,
        multiprocessing_context="spawn",
        prefetch_factor=AHEAD,
        worker_init_fn=_in_worker,
    )


def _ahead(items: Iterable[Any], pin: bool) -> Iterator[Any]:
    """Yield the items, fetched by a thread ``AHEAD`` of the reader."""
    waiting: queue.Queue[Any] = queue.Queue(AHEAD)
    stopped, started = threading.Event(), threading.Event()
    threads = torch.get_num_threads()

    def put(item: Any) -> None:
        while not stopped.is_set():
            with suppress(queue.Full):
                waiting.put(item, timeout=0.2)
                return

    def fetch() -> None:
        # OpenMP gives every thread that computes a team of its own. With more of them than cores
        # all wait for each other asleep instead of awake, and the training step takes longer.
        # Asked first, for a thread takes the number of the others when it first asks.
        torch.get_num_threads()
        torch.set_num_threads(1)
        started.set()
        try:
            for item in items:
                put(_mapped(item, _pinned) if pin else item)
                if stopped.is_set():
                    return
            put(StopIteration())
        except BaseException as error:  # noqa: BLE001 - raised again by the reader
            put(error)

    thread = threading.Thread(target=fetch, name="gsv3d-batches", daemon=True)
    thread.start()
    started.wait()
    # The call above also is the default of threads to come; it is put back to what it was.
    torch.set_num_threads(threads)
    try:
        while True:
            item = waiting.get()
            if isinstance(item, StopIteration):
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()


def _in_worker(index: int) -> None:
    # Several workers with all cores each are slower than with one.
    torch.set_num_threads(1)


def to_device(batch: Any, device: torch.device) -> Any:
    """Move tensors, and dataclasses, lists, tuples and dictionaries of them, to a device.

    A draft of a batch (``gsv3d.lab.training.sources.Draft``) is made there.
    """
    moved = _mapped(batch, lambda tensor: tensor.to(device, non_blocking=True))
    return moved.made() if hasattr(moved, "made") else moved


def _pinned(tensor: Tensor) -> Tensor:
    # Only from pinned memory does a copy to the card not wait for what the card is doing.
    return tensor if tensor.is_cuda else tensor.pin_memory()


def _mapped(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(batch, Tensor):
        return change(batch)
    if is_dataclass(batch) and not isinstance(batch, type):
        values = {f.name: _mapped(getattr(batch, f.name), change) for f in fields(batch)}
        return replace(batch, **values)
    if isinstance(batch, dict):
        return {key: _mapped(value, change) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(_mapped(value, change) for value in batch)
    return batch
