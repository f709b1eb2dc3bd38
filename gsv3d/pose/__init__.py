# SPDX-License-Identifier: Apache-2.0
"""Where a picture was taken from, and the mirror plane of what it shows."""
