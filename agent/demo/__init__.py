# SPDX-License-Identifier: Apache-2.0
"""`data-mover demo`: a real disk image, a real queue, real worker processes, and a kill -9 in the middle of a backup.

Nothing is simulated and nothing is trusted: every restored image is compared by SHA-256 and checked by e2fsck.
"""
