# SPDX-License-Identifier: Apache-2.0
"""Stores: where a repository's objects live, behind the one interface of `base`; wrappers add behaviour, one a file."""
