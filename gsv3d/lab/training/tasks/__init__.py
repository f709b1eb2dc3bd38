# SPDX-License-Identifier: Apache-2.0
"""The tasks that the loop trains, each in a module of its own."""

from gsv3d.lab.training.tasks.autoencoder import AutoencoderSettings, AutoencoderTask
from gsv3d.lab.training.tasks.base import Setup
from gsv3d.lab.training.tasks.decoder import DecoderSettings, DecoderTask
from gsv3d.lab.training.tasks.distill import DistillSettings, DistillTask
from gsv3d.lab.training.tasks.multiview import MultiviewSettings, MultiviewTask

__all__ = [
    "AutoencoderSettings",
    "AutoencoderTask",
    "DecoderSettings",
    "DecoderTask",
    "DistillSettings",
    "DistillTask",
    "MultiviewSettings",
    "MultiviewTask",
    "Setup",
]
