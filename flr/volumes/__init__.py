# SPDX-License-Identifier: Apache-2.0
"""What stands on the disks: partitions, volume groups, arrays, and what their volumes hold."""
