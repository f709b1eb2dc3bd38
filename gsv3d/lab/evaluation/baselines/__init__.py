# SPDX-License-Identifier: Apache-2.0
"""What a model has to be better than: results made without any generation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gsv3d.lab.evaluation.baselines.ellipsoid import ellipsoid
from gsv3d.lab.evaluation.baselines.slab import slab
from gsv3d.meshing.mesh import TexturedMesh

FROM_THE_PICTURE: dict[str, Callable[[np.ndarray], TexturedMesh]] = {
    "slab": slab,
    "ellipsoid": ellipsoid,
}
"""Baselines that need the (H, W, 4) uint8 reference alone."""

RETRIEVAL = "retrieval"
EMPTY = "empty"
NAMES = (RETRIEVAL, *FROM_THE_PICTURE, EMPTY)
"""All baselines, in the order of a table's rows; no model may have one of these names."""
