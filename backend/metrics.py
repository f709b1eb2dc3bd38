# SPDX-License-Identifier: Apache-2.0
"""Figures for Prometheus, at ``http://127.0.0.1:PORT/metrics``: jobs, stages, workers, memory.

The server's loop sets the values; a thread of prometheus_client answers requests for them.
"""

from __future__ import annotations

from collections import Counter

import psutil

from .clients import Clients
from .errors import BackendError
from .jobs import Jobs
from .protocol.entries import STATES

#: Seconds between two looks.
_LOOK_S = 2.0


class Metrics:
    """Serve figures of what the backend does.

    Args:
        port: port of 127.0.0.1.
        jobs, clients: what the figures are about.

    Raises:
        BackendError: prometheus_client is not installed, or the port is taken.
    """

    def __init__(self, port: int, jobs: Jobs, clients: Clients) -> None:
        try:
            import prometheus_client as prometheus
        except ImportError as error:
            raise BackendError(
                "The package prometheus_client, which --metrics needs, is not installed.",
                "Install it with: pip install 'gsv3d[metrics]'",
            ) from error
        self._jobs, self._clients = jobs, clients
        self._told = {job.id for job in jobs if job.record.over}
        self._process = psutil.Process()
        self._next_look = 0.0
        registry = prometheus.CollectorRegistry()
        gauge, counter = prometheus.Gauge, prometheus.Counter
        self._by_state = gauge("gsv3d_jobs", "Jobs by state.", ["state"], registry=registry)
        self._waiting = gauge("gsv3d_queue_length", "Jobs that wait.", registry=registry)
        self._seconds = counter(
            "gsv3d_stage_seconds", "Seconds of done jobs by stage.", ["stage"], registry=registry
        )
        self._ended = counter("gsv3d_jobs_ended", "Jobs that ended.", ["state"], registry=registry)
        self._connected = gauge("gsv3d_clients", "Clients connected.", registry=registry)
        self._workers = gauge("gsv3d_workers", "Processes of workers.", registry=registry)
        self._memory = gauge(
            "gsv3d_memory_bytes", "Resident memory by process.", ["process"], registry=registry
        )
        try:
            self._http, self._thread = prometheus.start_http_server(port, "127.0.0.1", registry)
        except OSError as error:
            raise BackendError(
                f"Port {port} of 127.0.0.1 cannot be opened: {error.strerror}.",
                "Another program may use it: choose another with --metrics.",
            ) from error

    def update(self, now: float) -> None:
        """Set all figures, every other second."""
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_S
        states = Counter(job.record.state for job in self._jobs)
        for state in STATES:
            self._by_state.labels(state).set(states[state])
        self._waiting.set(len(self._jobs.waiting()))
        self._connected.set(len(self._clients.peers))
        self._count_ended()
        self._look_at_processes()

    def _count_ended(self) -> None:
        over = {job.id: job for job in self._jobs if job.record.over}
        for job in (job for name, job in over.items() if name not in self._told):
            state = "done" if job.record.state == "fetched" else job.record.state
            self._ended.labels(state).inc()
            if state == "done":
                for stage, seconds in job.record.outcome.get("timings", {}).items():
                    self._seconds.labels(stage).inc(max(seconds, 0.0))
        self._told = set(over)

    def _look_at_processes(self) -> None:
        workers = []
        for child in self._process.children():
            try:
                workers.append(child.memory_info().rss)
            except psutil.Error:
                pass  # it has just ended
        self._workers.set(len(workers))
        self._memory.labels("backend").set(self._process.memory_info().rss)
        self._memory.labels("workers").set(sum(workers))

    def close(self) -> None:
        """End the thread and close its port."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
