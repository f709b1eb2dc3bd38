# SPDX-License-Identifier: Apache-2.0
"""Settings of a backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Hold the settings of a backend.

    Attributes:
        data_dir: where pictures, results, journal and logs lie.
        connection_path: the connection file.
        port: port of 127.0.0.1 to listen on; 0 takes a free one.
        listen: host and port to listen on for other computers as well; None: there are none.
        metrics: port of 127.0.0.1 for Prometheus; None: there are no figures.
        device: device of the workers.
        memory: "auto", "24", "12" or "8": GB of a card's memory that a model may take.
        workers: processes that do jobs at the same time; None: one for each card.
        ray: address of the Ray cluster that the workers run in; empty: on this computer.
        text_model: the text-to-image model of clients that name none: its folder or its id.
        threads: CPU threads of a worker; None: its share of all cores but one.
        parent_pid: the backend ends when this process and all other clients have; None: never.
        worker_command: the workers' command line; None is the model's worker.
        grace_s: seconds a cancelled job has to stop before its worker is ended.
        stall_s: seconds without a word from a worker at work before it is ended.
        keep_alive_s: seconds without a job until a worker is ended, so that its memory is free.
        keep_days, keep_gb: ended jobs are forgotten after so many days, and the oldest ones while
            all together take more disk space.
    """

    data_dir: Path
    connection_path: Path
    port: int = 0
    listen: tuple[str, int] | None = None
    metrics: int | None = None
    device: str = "auto"
    memory: str = "auto"
    workers: int | None = None
    ray: str = ""
    text_model: str = ""
    threads: int | None = None
    parent_pid: int | None = None
    worker_command: Sequence[str] | None = None
    grace_s: float = 20.0
    stall_s: float = 1800.0
    keep_alive_s: float = 900.0
    keep_days: float = 30.0
    keep_gb: float = 20.0
