# SPDX-License-Identifier: Apache-2.0
"""An executable model of the concurrency rules (docs/concurrency.md), searched breadth first.

One move is one request that the store answers atomically; what the request says was fixed by what its process had read
before. So a process that is slow, paused or a zombie, and a request that arrives late, is a process that makes its move
late: every interleaving is searched. A lease may lapse at any moment (a take-over is always possible), and a write that
names a lease succeeds only while its process still holds it. A crash is a process that never moves again.

It is a model of the rules, not of our code: the simulator beside it runs the real code. Small scope, exact search.

    python -m tests.world.model                               every scenario with every rule in force
    python -m tests.world.model race --without second_mark    the shortest loss when a rule is broken
"""
