# SPDX-License-Identifier: Apache-2.0
"""The Gaussian Splatting Decoder: latents of all views, and features of the reference, to 3D."""

from gsv3d.decoder.model import DecodedGaussians, GaussianSplattingDecoder

__all__ = ["DecodedGaussians", "GaussianSplattingDecoder"]
