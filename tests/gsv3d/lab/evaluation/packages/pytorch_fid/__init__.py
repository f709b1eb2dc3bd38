# SPDX-License-Identifier: Apache-2.0
"""In place of the package pytorch-fid."""
