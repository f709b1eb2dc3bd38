# SPDX-License-Identifier: Apache-2.0
"""Reading and smoothing logs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gsv3d.errors import DataError
from gsv3d.lab.training.log import read_log, smooth


def test_smoothing_is_the_mean_of_the_last_values() -> None:
    values = np.random.default_rng(0).normal(size=60)
    values[[3, 30, 31]] = np.nan
    expected = [np.nanmean(values[max(0, i - 6) : i + 1]) for i in range(60)]
    assert smooth(values, 7) == pytest.approx(expected)
    assert np.isnan(smooth(np.array([np.nan, 1.0]), 1)[0])


@pytest.mark.parametrize("text", [None, "", "step,loss\n", "step,loss\n1,much\n", "step,loss\n1\n"])
def test_a_log_that_cannot_be_read_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "log.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=r"log\.csv"):
        read_log(path)
