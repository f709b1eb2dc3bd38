# SPDX-License-Identifier: Apache-2.0
"""The local service between Blender and the model."""
