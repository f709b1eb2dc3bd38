# SPDX-License-Identifier: Apache-2.0
"""The commands ``gsv3d render``, ``train`` and ``evaluate``."""
