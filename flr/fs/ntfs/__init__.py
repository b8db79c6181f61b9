# SPDX-License-Identifier: Apache-2.0
"""NTFS. Structures are read by our own code; what NTFS compresses is decompressed by libfsntfs (docs/decisions/0010).

Written from libyal's description of the format ("New Technologies File System (NTFS)"), the Linux-NTFS project's documentation,
Microsoft's [MS-FSCC] for reparse points, and from images; each module names the structures that it reads. The log ($LogFile) is
looked at and never replayed.
"""
