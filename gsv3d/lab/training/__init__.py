# SPDX-License-Identifier: Apache-2.0
"""Training: autoencoder, multi-view diffusion and decoder; one loop, a task for each."""
