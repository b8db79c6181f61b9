# SPDX-License-Identifier: Apache-2.0
"""The repository: docs/format.md in code, and the session's half of docs/concurrency.md.

- The format, pure, without a store: `names`, `keys`, `frame`, `pack`, `tables`, `maps`, `packlist`, `index_run`, `record`,
  `signed_json`, `collector_state`, `descriptor`.
- The same over a store: `packer`, `index`, `leased`, `session`, `opening`, `hold`, `reader`, `map_store`, `repository`.

Not here: what is read from a disk and written to one (mover.disk), and the order of the work (mover.backup, mover.restore).
"""
