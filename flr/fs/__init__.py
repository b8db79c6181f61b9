# SPDX-License-Identifier: Apache-2.0
"""Readers of file systems: one narrow interface (`base`), one package or module for each kind."""
