# SPDX-License-Identifier: Apache-2.0
"""What a person does in a session of file-level recovery: look at points, list, search, choose, take out. No HTTP in here, and
nothing that understands what a guest wrote (`flr.fs`, in the parser's process)."""
