# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the arguments of the command without a window."""

from __future__ import annotations

import pytest

from blender_addon.arguments import make_parser


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--faces", "3", "must be 20 to 500000, not 3"),
        ("--steps", "viele", "'viele' is not a whole number"),
        ("--frames", "1", "must be 2 to 84, not 1"),
        ("--height", "0", "must be 0.001 to 10000 meters, not 0"),
        ("--height", "hoch", "'hoch' is not a number"),
        ("--elevation", "91", "must be -90 to 90 degrees, not 91"),
        ("--elevation", "nan", "must be -90 to 90 degrees, not nan"),
        ("--mirror", "on", "'on' is not a number or auto or off"),
        ("--azimuths", "90;0", "'90;0' must be numbers with commas between"),
    ],
)
def test_what_is_out_of_bounds_is_refused(capsys, option: str, value: str, words: str) -> None:
    with pytest.raises(SystemExit):
        make_parser("gsv3d").parse_args(["a.png", "--output", "a.blend", option, value])
    assert f"argument {option}: {words}" in capsys.readouterr().err
