# SPDX-License-Identifier: Apache-2.0
"""What a worker can do, a module for each kind of command: `run(work, payload)`, which fills in `work.outcome` or raises."""
