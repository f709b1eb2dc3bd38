# SPDX-License-Identifier: Apache-2.0
"""A wait with an end."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until ``condition()`` is true; fail after some seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"it did not come about within {seconds:.0f} s"
        time.sleep(0.02)
