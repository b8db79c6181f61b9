"""File-level recovery: the browser over one restore point's disks.

What it is: a virtual disk over a restore point, readers for partitions, volumes and file systems in user space, and
the web application through which people look into that disk and take files out of it.
What it is not: it never mounts or executes anything that came from a guest, and it writes nothing to a repository.
Imports point one way, agent -> flr -> mover: flr may import mover, never agent; a check in CI fails otherwise.
"""
