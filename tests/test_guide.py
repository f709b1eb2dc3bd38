# SPDX-License-Identifier: Apache-2.0
"""The guide for artists: its pictures. Its names are tested with the add-on's."""

from __future__ import annotations

from tests import guide


def test_pictures_are_there_and_small() -> None:
    shown = guide.list_pictures()
    assert len(shown) >= 5
    for picture in shown:
        assert picture.stat().st_size < 200_000, picture
