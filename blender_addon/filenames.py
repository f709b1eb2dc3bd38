# SPDX-License-Identifier: GPL-3.0-or-later
"""The library's rules for file names. The extension's zip holds that module in this place."""

from gsv3d.filenames import (  # noqa: F401 - for the other modules
    RESULT_NOTE,
    claim,
    free_stem,
    is_own_result,
    key_of,
    keys_in,
    keys_of,
    numbered,
    readable,
    release,
    safe_stem,
)
