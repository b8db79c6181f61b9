# SPDX-License-Identifier: Apache-2.0
"""A restore point's disks, or images, as bytes by position, for many threads: chunks cached and fetched side by side."""
