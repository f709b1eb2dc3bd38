# SPDX-License-Identifier: Apache-2.0
"""The one place the version lives; the extension's manifest is checked against it."""

__version__ = "0.1.0"
