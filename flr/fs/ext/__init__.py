# SPDX-License-Identifier: Apache-2.0
"""ext2, ext3 and ext4, with the journal replayed in memory. Written from the kernel's documentation of the format
(Documentation/filesystems/ext4) and from images; each module names the structures that it reads.
"""
