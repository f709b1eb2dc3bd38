# SPDX-License-Identifier: Apache-2.0
"""Estimate when a job will be done from the times of this run and of the model's earlier runs."""

from __future__ import annotations

from collections.abc import Mapping

#: The phases in order of a job whose Gaussians are fitted, and what each takes in relation to the
#: others until it was measured: seconds of blockout on two CPU cores, as `gsv3d generate` notes
#: them in its .json.
FITTED_PHASES: dict[str, float] = {
    "loading": 6.0,  # of the model, before its first job only
    "preparing": 0.1,
    "denoising": 3.0,
    "decoding": 0.5,
    "fitting": 15.0,
    "fusing": 7.0,
    "simplifying": 4.0,
    "unwrapping": 1.5,
    "texturing": 2.5,
}
#: The same of a job whose Gaussians a decoder makes.
PHASES = {phase: seconds for phase, seconds in FITTED_PHASES.items() if phase != "fitting"}
#: The same of a job that makes a picture of words, with a model of Stable Diffusion's size.
IMAGINE_PHASES: dict[str, float] = {"loading": 20.0, "imagining": 60.0, "cutting": 1.0}
#: Phases by the message that begins a job.
PHASES_OF = {"submit": PHASES, "imagine": IMAGINE_PHASES, "cutout": {"cutting": 1.0}}
#: Phases of denoising steps: their number tells how long they take.
STEPPED = ("denoising", "imagining")
#: How much a new measurement counts against the earlier ones.
_NEWER = 0.5


class Estimator:
    """Estimate the remaining time of one run.

    Args:
        speeds: seconds by phase from earlier runs (of denoising one step); may be empty.
        steps: denoising steps of this run, where known.
        now: seconds of a monotonic clock.
        phases: phases of this kind of job.
    """

    def __init__(
        self,
        speeds: Mapping[str, float],
        steps: int | None,
        now: float,
        phases: Mapping[str, float] = PHASES,
    ) -> None:
        self._phases = dict(phases)
        self._stepped = next((name for name in phases if name in STEPPED), "")
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
        if phase == self._stepped and step > 0:  # before the first their number may be a guess
            self._steps = of
        eta = self._remaining(now)
        elapsed = now - self._start
        if eta is not None:
            self._fraction = max(self._fraction, elapsed / max(elapsed + eta, 1e-9))
        return eta, min(self._fraction, 1.0)

    def forgive(self, seconds: float) -> None:
        """Do not count a time in which the computer slept."""
        self._start += seconds
        self._phase_start += seconds

    def speeds(self, now: float) -> dict[str, float]:
        """Return the speeds to keep after the run: the earlier ones blended with this run's."""
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
        if self._phase == self._stepped and self._of:
            seconds /= self._of
        self._measured[self._phase] = seconds

    def _step_seconds(self, now: float) -> float | None:
        """Return the seconds of one step of the phase under way, measured where possible."""
        if self._step > self._first:
            return (now - self._phase_start) / (self._step - self._first)
        return None

    def _remaining(self, now: float) -> float | None:
        step_seconds = self._step_seconds(now)
        if step_seconds is not None:
            here: float | None = step_seconds * (self._of - self._step)
        else:
            expected = self._expected(self._phase, None)
            here = None if expected is None else max(expected - (now - self._phase_start), 0.0)
        names = list(self._phases)
        later = names[names.index(self._phase) + 1 :] if self._phase in names else []
        unit = self._unit(step_seconds)
        parts = [here, *(self._expected(phase, unit) for phase in later)]
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None

    def _unit(self, step_seconds: float | None) -> float | None:
        """Return the seconds of a weight of 1, which this run's denoising alone tells."""
        if self._phase == self._stepped:
            seconds = step_seconds
        else:
            seconds = self._measured.get(self._stepped)
        if seconds is None or not self._steps:
            return None
        return seconds * self._steps / self._phases[self._stepped]

    def _expected(self, phase: str, unit: float | None) -> float | None:
        """Return the seconds a phase will take, from earlier runs or by its weight."""
        seconds = self._earlier.get(phase)
        if seconds is not None and phase != self._stepped:
            return seconds
        if seconds is not None and self._steps:
            return seconds * self._steps
        return None if unit is None else self._phases[phase] * unit
