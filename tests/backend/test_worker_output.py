# SPDX-License-Identifier: Apache-2.0
"""The output of a worker: bounded, and its last words found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backend.worker_output import WorkerOutput


def write_output(folder: Path, *parts: bytes) -> WorkerOutput:
    reading, writing = os.pipe()
    output = WorkerOutput(os.fdopen(reading, "rb"), folder / "output.log")
    with os.fdopen(writing, "wb") as pipe:
        for part in parts:
            pipe.write(part)
    output._thread.join()  # longer than `close` waits where the machine is busy
    output.close()
    return output


@pytest.mark.parametrize(
    ("printed", "words"),
    [
        (b"", ""),
        (b"loading\nFatal Python error: Segmentation fault\n\nThread 1:\n  File x, line 3\n",
         "Fatal Python error: Segmentation fault"),
        (b"x" * 1_000_000 + b"\nout\x07 of memory\n", "out  of memory"),
        (b"50 %\r51 %\xff\xfe", "51 %��"),
    ],
)  # fmt: skip
def test_last_words(tmp_path: Path, printed: bytes, words: str) -> None:
    assert write_output(tmp_path, printed).last_words().endswith(words)


def test_a_file_that_cannot_be_written_stops_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logging.raiseExceptions", False)
    (tmp_path / "output.log").mkdir()
    assert write_output(tmp_path, b"one\n" * 100_000, b"two\n").last_words() == "two"
