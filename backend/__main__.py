# SPDX-License-Identifier: Apache-2.0
"""Run `gsv3d-backend` as `python -m backend`."""

from __future__ import annotations

import sys

from .cli import main

sys.exit(main())
