# SPDX-License-Identifier: Apache-2.0
"""The repository: docs/format.md in code, and the session's half of docs/concurrency.md.

- `names`, `keys`, `frame`, `pack`, `maps`, `packlist`, `index_run`, `record`, `collector_state`, `descriptor`: the format, pure, no store.
- `packer`, `index`, `session`, `hold`, `reader`, `repository`: the same over a store.

Not here: what is read from a disk and written to one (mover.disk), and the order of the work (mover.backup, mover.restore).
"""
