# SPDX-License-Identifier: Apache-2.0
"""Messages to frames and back; bytes that are no message raise nothing but ProtocolError."""

from __future__ import annotations

import dataclasses
import tracemalloc

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.protocol import TAG, ProtocolError, VersionError, decode, encode, limits
from backend.protocol import messages as m
from backend.protocol.arrays import ArraySpec
from backend.protocol.fields import Buffer

JOB = "0123456789abcdef" * 2
VIEWS = (ArraySpec("images", "uint8", (2, 8, 9, 3)), ArraySpec("azimuths", "float32", (2,)))
CLOUD = (
    ArraySpec("means", "float32", (5, 3)), ArraySpec("quats", "float32", (5, 4)),
    ArraySpec("scales", "float32", (5, 3)), ArraySpec("opacities", "float32", (5,)),
    ArraySpec("sh", "float16", (5, 4, 3)),
)  # fmt: skip
MESH = (
    ArraySpec("vertices", "float32", (3, 3)), ArraySpec("faces", "int32", (1, 3)),
    ArraySpec("corner_uvs", "float32", (1, 3, 2)), ArraySpec("texture", "uint8", (16, 16, 3)),
)  # fmt: skip
EXAMPLES: list[m.Message] = [
    m.Hello((1,), "Blender", ("mesh",), JOB),
    m.Submit(JOB, b"\x89PNG", "Stühle/ü.png", "blockout", 7, 42, 100, 64, -3.5, 0, ("ply",)),
    m.Imagine(JOB, "ein Faß", "/Modelle/ü", 4, 1.5, 7),
    m.Cutout(JOB, b"\x89PNG", "Stühle/ü.png"),
    m.Cancel(JOB), m.Fetch(JOB), m.Status(True), m.Credit(3, 5), m.Ack(JOB),
    m.Forget(JOB), m.Retry(JOB), m.Move(JOB, 3), m.Shutdown(True), m.Ping(), m.Pong(),
    m.Welcome(1, "0.1.0", (m.ModelEntry("a", False, "b", "c"),), "cpu", {"image_bytes": 1.0},
              "someone/words"),
    m.Accepted(JOB, 2), m.Progress(JOB, "denoising", 3, 9, 1.5, 0.25),
    m.Views(JOB, 1, VIEWS, True), m.Gaussians(JOB, 2, CLOUD, 3, 9, False),
    m.Mesh(JOB, 3, MESH, 0.5),
    m.File(JOB, 4, (ArraySpec("data", "uint8", (9,)),), "glb"), m.Chunk(4, 0, b"123"),
    m.Dropped(JOB, 4), m.Done(JOB, {"total": 2.5}), m.Failed(JOB, "what", "why", "hint"),
    m.Cancelled(JOB), m.Acked(JOB), m.Forgotten(JOB), m.Free(),
    m.Queue((m.JobEntry(JOB, "running", "a.png", "blockout", 0, "x", 1, 2, None, "", "submit",
                        "you", {"seed": 3.0}),)),
    m.Invite("a.local:7"), m.Pair("k" * 40, "a"), m.Invitation("gsv3d://a:7/x", 600), m.Paired(),
    m.Error("busy", "what", "hint", None), m.Bye("why"),
]  # fmt: skip


def choose_sender(message: m.Message) -> str:
    return "server" if message.SENDER == "both" else message.SENDER


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda e: e.TYPE)
def test_round_trip(message: m.Message) -> None:
    frames = [bytes(frame) for frame in encode(message, 7)]
    assert decode(frames, choose_sender(message)) == (message, 7)


def test_every_message_has_an_example() -> None:
    assert {type(e) for e in EXAMPLES} == set(m.ALL)


def test_frames_as_documented() -> None:
    """The frames are written out by hand, not by the codec."""
    header = {"type": "credit", "seq": 4, "transfer": 9, "chunks": 2}
    assert decode([b"GSV3D/1", msgpack.packb(header)], "client").message == m.Credit(9, 2)
    frames = encode(m.Chunk(9, 0, b"abc"), 5)
    assert frames[0] == b"GSV3D/1" and frames[2] == b"abc"
    assert msgpack.unpackb(frames[1]) == {"type": "chunk", "seq": 5, "transfer": 9, "offset": 0}


def test_unknown_fields_are_left_aside() -> None:
    header = {"type": "ping", "seq": 1, "color": "red"}
    assert decode([TAG, msgpack.packb(header)], "client").message == m.Ping()


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([], "frames"),
        ([TAG], "frames"),
        ([TAG, b"", b"", b""], "frames"),
        ([b"HTTP/1.1", b""], "tag"),
        ([TAG, b""], "msgpack"),
        ([TAG, b"\xc1"], "msgpack"),
        ([TAG, b"\x80\x80"], "msgpack"),
        ([TAG, msgpack.packb([1])], "map"),
        ([TAG, msgpack.packb({"type": 3})], "no message"),
        ([TAG, msgpack.packb({"type": "dance", "seq": 1})], "'dance'"),
        ([TAG, msgpack.packb({"type": "ping"})], "seq"),
        ([TAG, msgpack.packb({"type": "ping", "seq": -1})], "seq"),
        ([TAG, msgpack.packb({"type": "ping", "seq": True})], "seq"),
        ([TAG, msgpack.packb({"type": "ping", "seq": 1}), b"x"], "2 frames"),
        ([TAG, msgpack.packb({"type": "submit", "seq": 1, "job": JOB})], "3 frames"),
        ([TAG, msgpack.packb({"type": "welcome", "seq": 1})], "does not come from a client"),
        ([TAG, msgpack.packb({"type": "cancel", "seq": 1, "job": "../../etc"})], "hexadecimal"),
        ([TAG, msgpack.packb({"type": "cancel", "seq": 1})], "job is missing"),
        ([TAG, b"\x81" + b"\xa1a" * 1 + b"\xdd\xff\xff\xff\xff"], "msgpack"),
        ([TAG, b"\x91" * 5000], "msgpack"),
        ([TAG, b" " * (limits.HEADER_BYTES + 1)], "at most"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(frames: list[bytes], words: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(frames, "client")
    assert words in caught.value.what and caught.value.what.endswith(".")


def test_another_framing_version_is_named() -> None:
    with pytest.raises(VersionError, match="'7'.*same version"):
        decode([b"GSV3D/7", b""], "client")


def test_a_wrong_field_keeps_the_job_it_was_about() -> None:
    header = {"type": "submit", "seq": 1, "job": JOB, "steps": 10**6}
    with pytest.raises(ProtocolError, match="steps must be a whole number from 1 to 200") as caught:
        decode([TAG, msgpack.packb(header), b"x"], "client")
    assert caught.value.job == JOB


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0), ("steps", 1.5), ("steps", True), ("seed", -1), ("seed", 2**31),
        ("faces", 19), ("faces", 500_001), ("texture_size", 8193), ("elevation", float("nan")),
        ("elevation", 90.5), ("elevation", "10"), ("mirror", "maybe"), ("mirror", None),
        ("orbit", "spiral"), ("frames", 1), ("frames", 85), ("azimuths", [361.0]),
        ("azimuths", [0.0] * 85), ("elevations", [91.0]), ("elevations", [float("nan")]),
        ("elevations", None),
        ("plane", 361.0), ("plane", None), ("previews", 51), ("files", ["exe"]),
        ("files", ["glb"] * 3), ("model", "../model"), ("model", ""), ("filename", "x" * 256),
        ("filename", "a\x00b"), ("job", JOB.upper()), ("image", b""),
    ],
)  # fmt: skip
def test_submit_refuses_bad_fields(field: str, value: object) -> None:
    values = {"job": JOB, "image": b"x", field: value}
    with pytest.raises(ProtocolError, match=field):
        m.Submit(**values)  # type: ignore[arg-type]


def make_spec(name: str, dtype: str, *shape: int) -> ArraySpec:
    return ArraySpec(name, dtype, shape)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("job", JOB.upper()), ("job", ""), ("image", b""), ("image", "text"),
        ("filename", "x" * 256), ("filename", "a\x1bb"), ("filename", 7),
    ],
)  # fmt: skip
def test_cutout_refuses_bad_fields(field: str, value: object) -> None:
    values = {"job": JOB, "image": b"x", field: value}
    with pytest.raises(ProtocolError, match=field):
        m.Cutout(**values)


@pytest.mark.parametrize("value", [float("nan"), -0.1, 1.5, True, "1"])
def test_a_certainty_that_is_none_is_refused(value: object) -> None:
    file = (ArraySpec("data", "uint8", (9,)),)
    with pytest.raises(ProtocolError, match="certainty"):
        m.File(JOB, 4, file, "png", value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (CLOUD[:4], "must be means"),
        (CLOUD + CLOUD[:1], "must be means"),
        ((make_spec("means", "int32", 5, 3), *CLOUD[1:]), "float32"),
        ((make_spec("means", "float32", 5, 4), *CLOUD[1:]), "shape"),
        ((make_spec("means", "float32", 6, 3), *CLOUD[1:]), "elsewhere"),
        ((make_spec("means", "float32", 15), *CLOUD[1:]), "shape"),
        ((make_spec("means", "float32", 2**31 - 1, 3), *CLOUD[1:]), "size N"),
        ((*CLOUD[:4], make_spec("sh", "float32", 5, 3, 3)), "size K"),
        (
            (
                make_spec("means", "float32", 4_000_000, 3),
                make_spec("quats", "float32", 4_000_000, 4),
                make_spec("scales", "float32", 4_000_000, 3),
                make_spec("opacities", "float32", 4_000_000),
                make_spec("sh", "float32", 4_000_000, 16, 3),
            ),
            "MiB",
        ),
    ],
)  # fmt: skip
def test_announcements_beyond_the_limits_take_no_memory(
    arrays: tuple[ArraySpec, ...], words: str
) -> None:
    header = {
        "type": "gaussians", "seq": 1, "job": JOB, "transfer": 1,
        "arrays": [{"name": s.name, "dtype": s.dtype, "shape": list(s.shape)} for s in arrays],
    }  # fmt: skip
    frames = [TAG, msgpack.packb(header)]
    tracemalloc.start()
    with pytest.raises(ProtocolError, match=words):
        decode(frames, "server")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text()
    | st.binary(max_size=20) | st.sampled_from([JOB, "uint8", "means", 2**31, -1]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)  # fmt: skip
NAMES = sorted({f.name for e in m.ALL for f in dataclasses.fields(e)} | {"type", "seq"})
fast = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))


def check_decoding(frames: list[bytes]) -> None:
    for side in ("client", "server"):
        try:
            message, _ = decode(frames, side)
        except ProtocolError as error:
            assert error.what and "\n" not in error.what
        else:
            assert type(message) in m.ALL


@fast
@given(st.lists(st.binary(max_size=300), max_size=5), st.booleans())
def test_any_bytes_decode_or_are_refused(frames: list[bytes], tagged: bool) -> None:
    check_decoding([TAG, *frames] if tagged else frames)


@fast
@given(st.sampled_from(sorted(m.BY_TYPE)), st.dictionaries(st.sampled_from(NAMES), values),
       st.binary(max_size=9) | st.none())  # fmt: skip
def test_any_values_in_any_field_decode_or_are_refused(
    kind: str, fields: dict, buffer: bytes | None
) -> None:
    try:
        header = msgpack.packb({"seq": 1, **fields, "type": kind})
    except (ValueError, OverflowError, UnicodeEncodeError):
        return
    check_decoding([TAG, header] + ([buffer] if buffer is not None else []))


@fast
@given(st.sampled_from(EXAMPLES), st.data())
def test_damaged_messages_decode_or_are_refused(message: m.Message, data: st.DataObject) -> None:
    frames = [bytearray(frame) for frame in encode(message, 1)]
    for _ in range(data.draw(st.integers(1, 4))):
        frame = data.draw(st.sampled_from(frames))
        if frame:
            frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
            del frame[len(frame) - data.draw(st.integers(0, 2)) :]
    check_decoding([bytes(frame) for frame in frames])


def test_only_chunks_and_submits_have_buffers() -> None:
    kinds = {e.TYPE: [f for f in dataclasses.fields(e)
                      if isinstance(f.metadata["kind"], Buffer)] for e in m.ALL}  # fmt: skip
    assert {name for name, found in kinds.items() if found} == {"submit", "cutout", "chunk"}
