# SPDX-License-Identifier: Apache-2.0
"""What the loop trains: one task a module."""

from gsv3d.lab.training.tasks.autoencoder import AutoencoderTask
from gsv3d.lab.training.tasks.decoder import DecoderTask
from gsv3d.lab.training.tasks.distill import DistillTask
from gsv3d.lab.training.tasks.multiview import MultiviewTask

__all__ = ["AutoencoderTask", "DecoderTask", "DistillTask", "MultiviewTask"]
