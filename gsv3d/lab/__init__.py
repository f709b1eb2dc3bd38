# SPDX-License-Identifier: Apache-2.0
"""The laboratory: data, training and evaluation. Nothing outside imports it."""
