# SPDX-License-Identifier: Apache-2.0
"""Chunks and credit, and the arrays they become."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.protocol import IncomingTransfer, OutgoingTransfer, ProtocolError, arrays
from backend.protocol import messages as m
from backend.protocol.limits import CHUNK_BYTES
from tests.canned_results import BytesSource

JOB = "ab" * 16


def make_file(size: int) -> tuple[m.File, bytes]:
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    return m.File(JOB, 1, arrays.describe("file", {"data": data}), "glb"), data.tobytes()


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 5 * CHUNK_BYTES + 17]),
    st.integers(1, 9),
)
def test_what_goes_in_comes_out_and_never_more_than_the_window_is_under_way(
    size: int, window: int
) -> None:
    artifact, data = make_file(size)
    out, into = OutgoingTransfer(artifact, BytesSource(data)), IncomingTransfer(artifact, window)
    under_way: list[m.Chunk] = []
    granted = 0
    while not into.complete:
        grant = into.credit()
        granted += grant
        if grant:
            out.grant(grant)
        while out.ready:
            under_way.append(out.next_chunk())
        assert 0 < len(under_way) <= window
        into.feed(under_way.pop(0))
    assert out.finished and granted == -(-size // CHUNK_BYTES)
    assert into.arrays()["data"].tobytes() == data


def test_nothing_is_sent_without_credit() -> None:
    artifact, data = make_file(10)
    out = OutgoingTransfer(artifact, BytesSource(data))
    assert not out.ready
    with pytest.raises(RuntimeError):
        out.next_chunk()
    out.grant(1)
    chunk = out.next_chunk()
    out.take_back(chunk)
    assert out.next_chunk() == chunk and not out.ready


def test_a_source_that_has_shrunk_is_an_error() -> None:
    artifact, data = make_file(10)
    out = OutgoingTransfer(artifact, BytesSource(data[:5]))
    out.grant(1)
    with pytest.raises(OSError, match="5 bytes where 10"):
        out.next_chunk()


@pytest.mark.parametrize(
    ("granted", "chunk", "words"),
    [
        (False, m.Chunk(1, 0, b"x" * CHUNK_BYTES), "without credit"),
        (True, m.Chunk(1, 5, b"x"), "begins at byte 5"),
        (True, m.Chunk(1, 0, b"x" * 9), "all but the last"),
    ],
)
def test_chunks_out_of_turn_or_size_are_refused(granted: bool, chunk: m.Chunk, words: str) -> None:
    artifact, _ = make_file(3 * CHUNK_BYTES)
    into = IncomingTransfer(artifact)
    if granted:
        into.credit()
    with pytest.raises(ProtocolError, match=words):
        into.feed(chunk)
    assert into.received == 0


def test_bytes_beyond_the_announced_size_are_refused() -> None:
    artifact, _ = make_file(10)
    into = IncomingTransfer(artifact)
    into.credit()
    with pytest.raises(ProtocolError, match="longer than its 10 bytes"):
        into.feed(m.Chunk(1, 0, b"x" * 11))


def make_cloud(**changes: np.ndarray) -> dict[str, np.ndarray]:
    values = {
        "means": np.zeros((3, 3), "f4"),
        "quats": np.ones((3, 4), "f4"),
        "scales": np.ones((3, 3), "f4"),
        "opacities": np.ones(3, "f4"),
        "sh": np.zeros((3, 1, 3), "f2"),
    }
    return {**values, **changes}


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        (
            "gaussians",
            make_cloud(means=np.full((3, 3), np.nan, "f4")),
            "means of gaussians holds 9",
        ),
        ("gaussians", make_cloud(sh=np.full((3, 1, 3), np.inf, "f2")), "sh of gaussians holds 9"),
        ("gaussians", make_cloud(opacities=np.full(3, 1.5, "f4")), "between 0 and 1"),
        ("gaussians", make_cloud(scales=np.full((3, 3), -1, "f4")), "negative"),
        (
            "mesh",
            {"vertices": np.zeros((3, 3), "f4"), "faces": np.array([[0, 1, 3]], "i4")},
            "outside 0 to 2",
        ),
        (
            "mesh",
            {"vertices": np.zeros((3, 3), "f4"), "faces": np.array([[0, -1, 2]], "i4")},
            "outside 0 to 2",
        ),
    ],
)
def test_bad_values_of_arrays_are_refused(
    kind: str, values: dict[str, np.ndarray], words: str
) -> None:
    with pytest.raises(ProtocolError, match=words):
        arrays.check_values(kind, values)


def make_mesh(**more: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "vertices": np.zeros((3, 3), "f4"), "faces": np.zeros((1, 3), "i4"),
        "corner_uvs": np.zeros((1, 3, 2), "f4"), "texture": np.zeros((16, 16, 3), "u1"), **more,
    }  # fmt: skip


def test_a_mesh_may_have_an_alpha_and_it_comes_last() -> None:
    plain = arrays.describe("mesh", make_mesh())
    specs = arrays.describe("mesh", make_mesh(alpha=np.zeros((16, 16), "u1")))
    assert specs[:-1] == plain and specs[-1].name == "alpha"
    with pytest.raises(ProtocolError, match="T of alpha is 32, elsewhere 16"):
        arrays.describe("mesh", make_mesh(alpha=np.zeros((32, 32), "u1")))
    with pytest.raises(ProtocolError, match="The arrays of mesh must be vertices"):
        arrays.check_specs("mesh", (*specs, specs[-1]))
    with pytest.raises(ProtocolError, match="The arrays of mesh must be vertices"):
        arrays.check_specs("mesh", specs[1:])


def test_layout_on_the_wire() -> None:
    """Against struct: little endian, C order, one array after the other."""
    import struct

    values = {"images": np.arange(2 * 1 * 1 * 3, dtype="u1").reshape(2, 1, 1, 3),
              "azimuths": np.array([90.0, 0.0], ">f4")}  # fmt: skip
    specs = arrays.describe("views", values)
    assert specs[1] == arrays.ArraySpec("azimuths", "float32", (2,))
    data = b"".join(arrays.to_buffers(specs, values))
    assert data == bytes(range(6)) + struct.pack("<2f", 90.0, 0.0)
    back = arrays.from_buffer(specs, bytearray(data))
    np.testing.assert_array_equal(back["azimuths"], [90.0, 0.0])
    with pytest.raises(ProtocolError, match="13 bytes where 14"):
        arrays.from_buffer(specs, data[:-1])
