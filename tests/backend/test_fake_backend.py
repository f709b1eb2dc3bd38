# SPDX-License-Identifier: Apache-2.0
"""The fake backend of the add-on's tests does what its behaviors say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backend.protocol import Violation
from backend.protocol import messages as m
from tests.backend.client import Client
from tests.canned_results import encode_ply, make_box, make_sphere
from tests.fake_backend import FakeBackend


def test_a_job_from_hello_to_files(tmp_path: Path) -> None:
    with FakeBackend(tmp_path, gaussians=20_000) as fake, Client(fake.connection_path) as client:
        job = client.session.submit(b"picture", filename="ü.png", seed=5, files=("glb", "ply"))
        client.wait_for(m.Done)
        results = client.list_results(job)
        kinds = [(e.kind, getattr(e.artifact, "final", None)) for e in results]
        assert kinds[:2] == [("gaussians", False), ("views", False)]
        assert kinds[-5:-2] == [("views", True), ("gaussians", True), ("mesh", None)]
        assert not [e for e in client.events if isinstance(e, Violation)]
        received = {e.kind: e for e in results}
        for name, array in make_sphere(20_000, 5).items():
            np.testing.assert_array_equal(received["gaussians"].arrays[name], array)
        for name, array in make_box().items():
            np.testing.assert_array_equal(received["mesh"].arrays[name], array)
        assert received["file"].artifact.name == "ply"
        assert received["file"].arrays["data"].tobytes() == encode_ply(make_sphere(20_000, 5))


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
        assert words in client.wait_for(Violation).what
