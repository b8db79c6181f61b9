# SPDX-License-Identifier: Apache-2.0
"""Disks as bytes: where they are read from and written to. Nothing here knows of chunks, maps or repositories."""
