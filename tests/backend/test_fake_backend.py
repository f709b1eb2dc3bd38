# SPDX-License-Identifier: Apache-2.0
"""The fake backend of the add-on's tests does what its behaviors say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backend.protocol import Received, Violation, explain_silence, read_connection
from backend.protocol import messages as m
from tests.backend.client import Client
from tests.canned_results import box_mesh, ply_bytes, sphere_gaussians
from tests.fake_backend import FakeBackend


def test_a_job_from_hello_to_files(tmp_path: Path) -> None:
    with FakeBackend(tmp_path, gaussians=20_000) as fake, Client(fake.connection_path) as client:
        job = client.session.submit(b"picture", filename="ü.png", seed=5, files=("glb", "ply"))
        client.until(m.Done)
        kinds = [(e.kind, getattr(e.artifact, "final", None))
                 for e in client.of_job(job) if isinstance(e, Received)]  # fmt: skip
        assert kinds[:2] == [("gaussians", False), ("views", False)]
        assert kinds[-5:-2] == [("views", True), ("gaussians", True), ("mesh", None)]
        assert not [e for e in client.events if isinstance(e, Violation)]
        received = {e.kind: e for e in client.events if isinstance(e, Received)}
        for name, array in sphere_gaussians(20_000, 5).items():
            np.testing.assert_array_equal(received["gaussians"].arrays[name], array)
        for name, array in box_mesh().items():
            np.testing.assert_array_equal(received["mesh"].arrays[name], array)
        assert received["file"].artifact.name == "ply"
        assert received["file"].arrays["data"].tobytes() == ply_bytes(sphere_gaussians(20_000, 5))


def test_cancel(tmp_path: Path) -> None:
    with FakeBackend(tmp_path, "slow") as fake, Client(fake.connection_path) as client:
        job = client.session.submit(b"picture")
        client.until(m.Progress)
        client.session.cancel(job)
        client.until(m.Cancelled)
        assert not client.session.open_jobs


@pytest.mark.parametrize(
    ("behavior", "words"),
    [
        ("nan", "not finite"),
        ("truncated", "all but the last"),
        ("bad_shapes", "must be"),
        ("flood", "not known"),
        ("other_framing", "version '2'"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, behavior: str, words: str) -> None:
    with FakeBackend(tmp_path, behavior) as fake, Client(fake.connection_path) as client:
        client.session.submit(b"picture")
        assert words in client.until(Violation).what


def test_another_version_is_told(tmp_path: Path) -> None:
    with FakeBackend(tmp_path, "wrong_version") as fake, Client(fake.connection_path) as client:
        error = client.until(m.Error)
        assert error.code == "version" and "99" in error.what and "Update" in error.hint


@pytest.mark.parametrize("behavior", ["wrong_key", "silent"])
def test_silence_is_explained(tmp_path: Path, behavior: str) -> None:
    with FakeBackend(tmp_path, behavior) as fake, Client(fake.connection_path) as client:
        assert client.for_a_while(0.5) == []
        what, hint = explain_silence(read_connection(fake.connection_path))
        assert "No answer" in what and "keys" in hint
