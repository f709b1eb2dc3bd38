# SPDX-License-Identifier: Apache-2.0
"""Gather single objects from public git repositories, without duplicates, with their authors."""
