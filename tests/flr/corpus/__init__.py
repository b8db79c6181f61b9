# SPDX-License-Identifier: Apache-2.0
"""Disk images made with the real tools, and the truth about them told by something else than our readers."""
