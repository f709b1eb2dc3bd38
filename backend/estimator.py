# SPDX-License-Identifier: Apache-2.0
"""When a job will be done, from measured times: of this run, and of earlier runs of the model."""

from __future__ import annotations

from collections.abc import Mapping

#: The phases in order, and what each takes in relation to the others until it was measured.
PHASES: dict[str, float] = {
    "loading": 6.0,  # of the model, before its first job only
    "preparing": 2.0,
    "denoising": 60.0,
    "decoding": 3.0,
    "fusing": 8.0,
    "simplifying": 2.0,
    "unwrapping": 10.0,
    "texturing": 8.0,
}
#: How much a new measurement counts against the earlier ones.
_NEWER = 0.5


class Estimator:
    """The clock of one run.

    Args:
        speeds: seconds by phase from earlier runs (denoising: of one step); may be empty.
        steps: denoising steps of this run, where known.
        now: seconds of a monotonic clock.
    """

    def __init__(self, speeds: Mapping[str, float], steps: int | None, now: float) -> None:
        self._earlier = dict(speeds)
        self._steps = steps
        self._start = now
        self._phase = ""
        self._phase_start = now
        self._step, self._of, self._first = 0, 0, 0
        self._measured: dict[str, float] = {}
        self._fraction = 0.0

    def progress(self, phase: str, step: int, of: int, now: float) -> tuple[float | None, float]:
        """Take a progress report; return (seconds to go or None, fraction of the whole job)."""
        if phase != self._phase:
            self._end_phase(now)
            self._phase, self._phase_start = phase, now
            self._first = step
        self._step = step
        self._of = of
        if phase == "denoising":
            self._steps = of
        eta = self._remaining(now)
        elapsed = now - self._start
        if eta is not None:
            self._fraction = max(self._fraction, elapsed / max(elapsed + eta, 1e-9))
        return eta, min(self._fraction, 1.0)

    def speeds(self, now: float) -> dict[str, float]:
        """Return the speeds to keep when the run is done: earlier ones and this run's, blended."""
        self._end_phase(now)
        kept = dict(self._earlier)
        for phase, seconds in self._measured.items():
            before = kept.get(phase, seconds)
            kept[phase] = (1 - _NEWER) * before + _NEWER * seconds
        return kept

    def _end_phase(self, now: float) -> None:
        if not self._phase:
            return
        seconds = now - self._phase_start
        if self._phase == "denoising" and self._of:
            seconds /= self._of
        self._measured[self._phase] = seconds

    def _step_seconds(self, now: float) -> float | None:
        """Seconds of one step of the phase under way, measured where possible."""
        if self._step > self._first:
            return (now - self._phase_start) / (self._step - self._first)
        return None

    def _remaining(self, now: float) -> float | None:
        measured = self._step_seconds(now)
        if measured is not None:
            here = measured * (self._of - self._step)
            whole_here = measured * self._of
        else:
            expected = self._expected(self._phase)
            if expected is None:
                return None
            here, whole_here = max(expected - (now - self._phase_start), 0.0), expected
        names = list(PHASES)
        later = names[names.index(self._phase) + 1 :] if self._phase in PHASES else []
        total = here
        for phase in later:
            expected = self._expected(phase)
            if expected is None:
                weight = PHASES.get(self._phase, 1.0)
                expected = PHASES[phase] * whole_here / weight
            total += expected
        return total

    def _expected(self, phase: str) -> float | None:
        seconds = self._earlier.get(phase)
        if seconds is None or (phase == "denoising" and not self._steps):
            return None
        return seconds * (self._steps or 1) if phase == "denoising" else seconds
