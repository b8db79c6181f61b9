# SPDX-License-Identifier: Apache-2.0
"""Queues of commands and events: one interface, in Azure Queue Storage or in a SQLite file."""
