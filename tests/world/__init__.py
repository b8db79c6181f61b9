# SPDX-License-Identifier: Apache-2.0
"""The rules of docs/concurrency.md put to the proof: a model of them, and a simulated world under the real code."""
