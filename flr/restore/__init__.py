# SPDX-License-Identifier: Apache-2.0
"""Files back to the machine that they came from: what is to be written, by which rule, and the ways it gets there. No HTTP."""
