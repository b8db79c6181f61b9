# SPDX-License-Identifier: Apache-2.0
"""FAT12, FAT16, FAT32 and exFAT. Written from Microsoft's specifications ("FAT: General Overview of On-Disk Format" 1.03, "exFAT
file system specification") and from images; each module names the structures that it reads. Why not libfsfat: docs/decisions/0011.
"""
