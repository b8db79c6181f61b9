#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fails unless everything that we ship has a licence of the list below.

What we ship is packaging/requirements/systemd.txt: the runtime's lock and systemd-python. The licence is what the
installed package's metadata says: License-Expression, else the classifiers, else a License field that is an SPDX
expression. Where that is silent or ambiguous somebody has read the licence's text, and OVERRIDES says what it is.
It believes the metadata: it does not look into the wheels for libraries that they bundle.

Usage: licences.py [LOCK [SITE_PACKAGES]]
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LOCK = Path(__file__).resolve().parents[1] / "requirements/systemd.txt"

# Permissive, LGPL, EPL-2.0 and MPL-2.0; never GPL alone, AGPL or what we do not know.
ALLOWED = {
    *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "MIT-0", "PSF-2.0", "Python-2.0"),
    *("Unlicense", "Zlib"),
    *("LGPL-2.1-only", "LGPL-2.1-or-later", "LGPL-3.0-only", "LGPL-3.0-or-later", "LGPL-2.0-or-later"),
    *("EPL-2.0", "MPL-2.0"),
}

# Only classifiers that name one licence; "BSD License" names several.
CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}


@dataclass(frozen=True)
class Override:
    said: str  # what the metadata says; when that changes, somebody looks again
    is_: str  # the SPDX expression that holds
    reason: str


OVERRIDES = {
    "google-re2": Override(
        "BSD License",
        "BSD-3-Clause",
        "the LICENSE file in the wheel is the text of BSD-3-Clause; the classifier does not say which BSD licence",
    ),
    "isodate": Override(
        "BSD License",
        "BSD-3-Clause",
        "the LICENSE file in the wheel is the text of BSD-3-Clause; the classifier does not say which BSD licence",
    ),
}


def is_allowed(expression: str) -> bool:
    """AND wants all its parts allowed, OR one. What is no SPDX expression, or has a WITH, is refused."""
    tokens = re.findall(r"[()]|[^\s()]+", expression)
    try:
        return _either(tokens) and not tokens
    except IndexError:  # it ends too early
        return False


def _either(tokens: list[str]) -> bool:
    allowed = _all(tokens)
    while tokens and tokens[0] == "OR":
        tokens.pop(0)
        allowed |= _all(tokens)
    return allowed


def _all(tokens: list[str]) -> bool:
    allowed = _one(tokens)
    while tokens and tokens[0] == "AND":
        tokens.pop(0)
        allowed &= _one(tokens)
    return allowed


def _one(tokens: list[str]) -> bool:
    head = tokens.pop(0)
    if head == "(":
        allowed = _either(tokens)
        return tokens.pop(0) == ")" and allowed
    return head in ALLOWED


def declared(metadata: importlib.metadata.PackageMetadata) -> tuple[str, str]:
    """What the metadata says, in its own words, and the SPDX expression that this is ("" when it is none)."""
    expression = metadata.get_all("License-Expression", [""])[0]
    if expression:
        return expression, expression
    prefix = "License :: OSI Approved :: "
    lines = [line for line in metadata.get_all("Classifier", []) if line.startswith("License ::")]
    names = [line.removeprefix(prefix) for line in lines if line != prefix.removesuffix(" :: ")]  # which names none
    if names:
        # Several classifiers may mean "and" or "or"; "and" is the strict reading.
        known = [CLASSIFIERS.get(name, "") for name in names]
        return ", ".join(names), " AND ".join(known) if all(known) else ""
    text = metadata.get_all("License", [""])[0].strip()
    return text[:80], text if "\n" not in text else ""


def problems(lock: Path, site: str | None, overrides: dict[str, Override]) -> Iterator[str]:
    names = re.findall(r"^([A-Za-z0-9][\w.-]*)==", lock.read_text(), flags=re.MULTILINE)
    if not names:
        yield f"{lock.name}: it names no package"
    path = [site] if site else sys.path
    for name in names:
        found = next(iter(importlib.metadata.distributions(name=name, path=path)), None)
        if found is None:
            yield f"{name}: it is not installed, so its licence is unknown; hint: make setup"
            continue
        said, expression = declared(found.metadata)
        if override := overrides.get(name):
            if said != override.said:
                yield f"{name}: the metadata says {said!r} now, the override was made for {override.said!r}"
            expression = override.is_
        if not is_allowed(expression):
            yield f"{name}: licence {said or 'unknown'!r} is not in the list of what we ship"
    for name in sorted(overrides.keys() - set(names)):
        yield f"{name}: it has an override and is not in {lock.name}"


def main() -> int:
    lock = Path(sys.argv[1]) if len(sys.argv) > 1 else LOCK
    site = sys.argv[2] if len(sys.argv) > 2 else None
    # Another tree's packages are judged without our exceptions.
    found = list(problems(lock, site, OVERRIDES if lock == LOCK else {}))
    for line in found:
        print(line, file=sys.stderr)
    if found:
        print("hint: choose another package, or read its licence and add an override with a reason", file=sys.stderr)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
