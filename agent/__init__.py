# SPDX-License-Identifier: Apache-2.0
"""The worker's daemon and the operator's command line: commands, events, the queue, and what carries a command out.

Nothing here knows how a disk becomes a restore point; that is `mover`. A verb of the command line builds the same command
that a queue carries, and one function (`agent.execute`) carries both out.
"""
