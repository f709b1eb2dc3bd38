# SPDX-License-Identifier: Apache-2.0
"""Measuring generated meshes against the true objects, beside baselines that know no 3D."""
