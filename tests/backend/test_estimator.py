# SPDX-License-Identifier: Apache-2.0
"""The estimate of the time left, for a run whose every second is known."""

from __future__ import annotations

import pytest

from backend.estimator import IMAGINE_PHASES, PHASES, Estimator

#: (phase, step, of, seconds since the start): loading 60 s, 10 steps of 3 s, 40 s of meshing.
RUN = [
    ("loading", 0, 1, 0.0), ("loading", 1, 1, 60.0), ("preparing", 0, 1, 60.0),
    ("preparing", 1, 1, 60.1), ("denoising", 0, 1, 60.1),
    *[("denoising", k, 10, 60.1 + 3.0 * k) for k in range(1, 11)],
    ("decoding", 0, 1, 90.1), ("decoding", 1, 1, 92.1), ("fusing", 0, 1, 92.1),
    ("simplifying", 0, 1, 102.1), ("unwrapping", 0, 1, 104.1), ("texturing", 0, 1, 122.1),
    ("texturing", 1, 1, 132.1),
]  # fmt: skip
END = RUN[-1][3]


def play_run(estimator: Estimator) -> list[tuple[str, float, float | None, float]]:
    reports = [(phase, now, *estimator.progress(phase, step, of, now))
               for phase, step, of, now in RUN]  # fmt: skip
    fractions = [fraction for *_, fraction in reports]
    assert fractions == sorted(fractions) and 0 <= fractions[0] and fractions[-1] <= 1
    return reports


def test_the_first_run_says_nothing_before_it_has_measured_steps() -> None:
    reports = play_run(Estimator({}, None, 0.0))
    early = [r for r in reports if r[0] in ("loading", "preparing")]
    assert all(eta is None and fraction == 0 for _, _, eta, fraction in early)
    for phase, now, eta, _ in reports:
        if phase == "denoising" and now > 63.2:
            later = sum(w for p, w in PHASES.items() if p not in ("loading", "preparing"))
            whole = 30.0 * later / PHASES["denoising"]
            assert eta == pytest.approx(whole - (now - 60.1), abs=0.2)


def test_the_second_run_knows_the_first() -> None:
    first = Estimator({}, None, 0.0)
    play_run(first)
    speeds = first.speeds(END)
    assert speeds["denoising"] == pytest.approx(3.0)
    assert speeds["unwrapping"] == pytest.approx(18.0)
    for phase, now, eta, fraction in play_run(Estimator(speeds, 10, 0.0)):
        if phase != "preparing":
            assert eta == pytest.approx(END - now, abs=0.2), phase
            assert fraction == pytest.approx(now / END, abs=0.01)


def test_times_of_steps_scale_to_another_number_of_steps() -> None:
    estimator = Estimator({**dict.fromkeys(PHASES, 0.0), "denoising": 2.0}, 50, 0.0)
    assert estimator.progress("preparing", 0, 1, 0.0)[0] == pytest.approx(100.0)


def test_a_picture_of_words_has_phases_of_its_own() -> None:
    run = [("loading", 0, 1, 0.0), ("imagining", 0, 1, 8.0)]
    run += [("imagining", k, 4, 8.0 + 2.0 * k) for k in range(1, 5)]
    run += [("cutting", 0, 1, 16.0), ("cutting", 1, 1, 17.0)]
    first = Estimator({}, None, 0.0, IMAGINE_PHASES)
    for phase, step, of, now in run:
        eta, fraction = first.progress(phase, step, of, now)
        if phase == "imagining" and step:  # steps of 2 s, then the cutting by its weight
            cutting = 8.0 * IMAGINE_PHASES["cutting"] / IMAGINE_PHASES["imagining"]
            assert eta == pytest.approx(16.0 - now + cutting)
    assert fraction == pytest.approx(1.0)
    speeds = first.speeds(17.0)
    assert speeds == pytest.approx({"loading": 8.0, "imagining": 2.0, "cutting": 1.0})
    again = Estimator(speeds, 4, 100.0, IMAGINE_PHASES)
    assert again.progress("loading", 0, 1, 100.0) == pytest.approx((17.0, 0.0))
