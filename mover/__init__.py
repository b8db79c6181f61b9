# SPDX-License-Identifier: Apache-2.0
"""The data plane: sources, targets, pipeline, repository, stores.

It moves bytes between a disk and a repository and keeps the repository's promises (docs/concurrency.md, docs/format.md).
It knows nothing of commands, queues or browsers: `agent` and `flr` import it, it imports neither.
"""
