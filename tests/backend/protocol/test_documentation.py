# SPDX-License-Identifier: Apache-2.0
"""docs/protocol.md and the code say the same: messages, fields, bounds, codes and limits."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from backend.clients import MAX_PEERS
from backend.jobs import MAX_WAITING, MAX_WAITING_EACH
from backend.peers import OPEN_TRANSFERS
from backend.protocol import TAG, limits
from backend.protocol import messages as m
from backend.protocol.arrays import DTYPES, SCHEMAS, SIZES, ArraySpec
from backend.protocol.entries import STATES
from backend.protocol.fields import Choice, Integer, ListOf, Number, Text

PAGE = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text(encoding="utf-8")
PARTS = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))


def read_rows(part: str) -> dict[str, str]:
    return dict(re.findall(r"^\| `(\w+)` \|(.*)\|$", part, re.MULTILINE))


def test_every_message_and_no_other() -> None:
    assert list(PARTS) and set(PARTS) == set(m.BY_TYPE)


@pytest.mark.parametrize("message", m.ALL, ids=lambda e: e.TYPE)
def test_every_field_with_its_bounds(message: type[m.Message]) -> None:
    part = PARTS[message.TYPE]
    table = read_rows(part)
    fields = {f.name: f.metadata["kind"] for f in dataclasses.fields(message)}
    assert set(table) == set(fields)
    assert fields or "No fields." in part
    for name, kind in fields.items():
        words = re.findall(r"-?\d+|`\w+`", table[name])
        if isinstance(kind, (Integer, Number)):
            assert f"{kind.low:.0f}" in words, name
            assert f"{kind.high:.0f}" in words or kind.high == 2**62, name
        if isinstance(kind, Text):
            assert str(kind.high) in words, name
        if isinstance(kind, ListOf) and isinstance(kind.item, Choice):
            assert set(words) >= {f"`{choice}`" for choice in kind.item.choices}, name
        elif isinstance(kind, Choice) and name != "code":
            assert set(words) >= {f"`{choice}`" for choice in kind.choices}, name
        if isinstance(kind, (Integer, Number)) and kind.optional:
            assert "or nil" in table[name], name
    section = "## From the " + {"client": "client", "server": "backend"}.get(message.SENDER, "")
    if message.SENDER == "both":
        section = "## Both ways"
    position = PAGE.index(f"\n### {message.TYPE}\n")
    assert PAGE.rindex("\n## ", 0, position) == PAGE.index("\n" + section)


@pytest.mark.parametrize("record", [m.ModelEntry, m.JobEntry, ArraySpec])
def test_nested_fields(record: type) -> None:
    part = PARTS[{m.ModelEntry: "welcome", m.JobEntry: "queue", ArraySpec: "mesh"}[record]]
    for field in dataclasses.fields(record):
        assert f"`{field.name}`" in part


def test_arrays() -> None:
    for kind, schema in SCHEMAS.items():
        for name, (dtypes, shape) in schema.items():
            written = "(" + ", ".join(map(str, shape)) + ")"
            expected = f"`{name}` {' or '.join(dtypes)} {written}"
            assert expected in " ".join(PARTS[kind].split()), expected
    text = " ".join(PAGE.split())
    for letter, (low, high) in SIZES.items():
        if letter not in "BHWK":
            assert f"{letter} {low} to {high}" in text
    assert "K 1, 4, 9 or 16" in text and f"H and W 1 to {SIZES['H'][1]} pixels" in text
    assert all(f"`{name}`" in PAGE for name in DTYPES)


def test_codes_states_and_tag() -> None:
    assert set(re.findall(r"`(\w+)`", PARTS["error"].split("Codes:")[1])) == set(m.ERROR_CODES)
    assert all(f"`{state}`" in PAGE for state in STATES)
    assert f"`{TAG.decode()}`" in PAGE


def test_limits() -> None:
    mib, kib = limits.MIB, 1024
    values = dict(re.findall(r"^\| ([^|`]+|picture in `submit`|jobs in `queue`) \| ([^|]+) \|$",
                             PAGE.split("## Limits")[1], re.MULTILINE))  # fmt: skip
    assert values == {
        "what": "limit",
        "---": "---",
        "header": f"{limits.HEADER_BYTES // kib} KiB",
        "frames of a message": str(limits.FRAMES),
        "picture in `submit`": f"{limits.IMAGE_BYTES // mib} MiB",
        "frame a client accepts": f"{limits.CLIENT_FRAME_BYTES // mib} MiB",
        "chunk": f"{limits.CHUNK_BYTES // kib} KiB",
        "arrays of a transfer": f"{limits.TRANSFER_BYTES // mib} MiB",
        "transfers a client assembles at a time":
            f"{limits.OPEN_TRANSFERS}, {limits.OPEN_TRANSFER_BYTES // mib // 1024} GiB together",
        "transfers the backend announces ahead": str(OPEN_TRANSFERS),
        "chunks owed to a transfer": str(limits.CREDIT_CHUNKS),
        "jobs that wait, of all clients and of one": f"{MAX_WAITING}, {MAX_WAITING_EACH}",
        "clients of a backend": str(MAX_PEERS),
        "jobs in `queue`": str(limits.QUEUE_ENTRIES),
    }  # fmt: skip
    text = " ".join(PAGE.split())
    assert f"nothing for {limits.HEARTBEAT_S:.0f} s sends `ping`" in text
    assert f"hears nothing for {limits.LIVENESS_S:.0f} s" in text
    assert f"session after {3 * limits.LIVENESS_S:.0f} s of silence" in text
