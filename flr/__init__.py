"""File-level recovery: files out of a restore point's disks, or of images, without restoring them.

What it is: virtual disks over restore points (`virtual`), readers for partitions, arrays, groups (`volumes`) and file systems
(`fs`) in user space, the process that they run in (`parser`), and what is done with what they tell: `session`, `walk`, `catalogue`,
`archive`, `zip`, `difference`.
What it is not: it never mounts or executes anything that came from a guest, and it writes nothing to a repository but a hold.
Imports point one way, agent -> flr -> mover: flr may import mover, never agent; a check in CI fails otherwise.
"""
