# SPDX-License-Identifier: Apache-2.0
"""Tests mirror the tree: tests/mover/store/ tests mover/store/. Helpers that several of them use are modules here."""
