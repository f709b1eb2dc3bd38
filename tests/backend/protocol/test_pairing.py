# SPDX-License-Identifier: Apache-2.0
"""Pairing codes: written, read, mistyped."""

from __future__ import annotations

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from backend.protocol import PairingCode, ProtocolError, parse_address, parse_code

PUBLIC = b"rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"  # from CURVE's reference (RFC 26)
CODE = PairingCode("render-box.local", 27473, PUBLIC.decode(), bytes(range(16)))


@pytest.mark.parametrize("host", ["127.0.0.1", "[fe80::1]", "render-box.local", "RENDER_BOX"])
def test_a_code_comes_back_from_its_line(host: str) -> None:
    code = PairingCode(host, 65535, PUBLIC.decode(), bytes(16))
    line = str(code)
    assert line.startswith(f"gsv3d://{host}:65535/") and line.isascii() and len(line.split()) == 1
    assert parse_code(f"  {line[:50]}\n{line[50:]} ") == code, "a mail may have broken the line"
    assert code.endpoint == f"tcp://{host}:65535"


def test_the_keys_are_a_pair_of_the_seed_alone() -> None:
    public, secret = CODE.keys()
    assert zmq.curve_public(secret) == public
    other = PairingCode("elsewhere", 1, PUBLIC.decode(), CODE.seed)
    assert other.keys() == (public, secret)
    assert PairingCode("a", 1, PUBLIC.decode(), bytes(16)).keys() != (public, secret)


@given(st.integers(0, len(str(CODE)) - 1), st.characters(codec="ascii", categories=["L", "N"]))
def test_a_wrong_letter_is_noticed(place: int, letter: str) -> None:
    line = str(CODE)
    typed = line[:place] + letter + line[place + 1 :]
    if typed == line:
        return
    with pytest.raises(ProtocolError) as caught:
        parse_code(typed)
    assert caught.value.what.endswith(".") and "whole line" in caught.value.hint


@pytest.mark.parametrize(
    "text", ["", "gsv3d://", "http://a.b:7/x", str(CODE)[:-1], str(CODE)[6:], "ü" * 90]
)
def test_what_is_no_code_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match="whole line"):
        parse_code(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.7", ("10.0.0.7", 27473)),
        ("box.local:80", ("box.local", 80)),
        ("[::1]", ("[::1]", 27473)),
        (" [fe80::2]:9 ", ("[fe80::2]", 9)),
    ],
)
def test_addresses_are_parsed(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", ":80", "a:0", "a:65536", "::1", "a b", "a:80/x", "a:port"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match="is not an address"):
        parse_address(text)
