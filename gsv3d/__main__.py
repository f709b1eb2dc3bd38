# SPDX-License-Identifier: Apache-2.0
"""``python -m gsv3d``: the same as the command ``gsv3d``."""

import sys

from gsv3d.cli import main

if __name__ == "__main__":
    sys.exit(main())
