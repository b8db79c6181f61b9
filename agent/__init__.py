# SPDX-License-Identifier: Apache-2.0
"""The worker's daemon and the operator's command line: commands, events, the queue, and what carries a command out.

Nothing here knows how a disk becomes a restore point; that is `mover`. A verb of the command line builds the same command
that a queue carries, and one function (`agent.execute`) carries both out.
"""

import os

# numpy is used for tables of records, never for algebra: its library would start a thread a processor for that, at the
# cost of 0.1 CPU seconds and some memory in each process. It looks at this before the first import only.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
