# SPDX-License-Identifier: Apache-2.0
"""Fixtures and settings that all tests share."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest

from tests.azurite import Azurite

# Two busy cores say nothing about a single example's time; pytest-timeout bounds the whole test.
hypothesis.settings.register_profile("default", deadline=None, print_blob=True)
hypothesis.settings.load_profile("default")


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """Azurite over plain HTTP, one for the session: a test makes containers and queues of its own."""
    with Azurite(tmp_path_factory.mktemp("azurite")) as running:
        yield running


@pytest.fixture(scope="session")
def azurite_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """Azurite over TLS, which also takes bearer tokens; `ca_file` is what clients must trust."""
    with Azurite(tmp_path_factory.mktemp("azurite-tls"), tls=True) as running:
        yield running
