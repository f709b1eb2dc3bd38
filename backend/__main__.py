# SPDX-License-Identifier: Apache-2.0
"""`python -m backend` is `gsv3d-backend`."""

from __future__ import annotations

import sys

from .cli import main

sys.exit(main())
