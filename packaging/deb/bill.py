# SPDX-License-Identifier: Apache-2.0
"""The bill of materials of a package that is being built: a CycloneDX document, and every licence's text.

    bill.py LIBRARY LOCK VERSION FOLDER

FOLDER gets bill-of-materials.json and licences/NAME/. Where a source is: each component names its page and version at PyPI, and
what a source there must hash to. Equal for equal input: its time is SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "checks"))
from licences import OVERRIDES, declared  # type: ignore[import-not-found]

OURS = "data-mover"
TEXTS = re.compile(r"(LICEN[CS]E|COPYING|COPYRIGHT|NOTICE|AUTHORS)", re.IGNORECASE)


def main() -> int:
    library, lock, version, folder = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    hashes = locked(lock.read_text())
    components = []
    for found in sorted(
        importlib.metadata.distributions(path=[str(library)]), key=lambda one: one.metadata["Name"].lower()
    ):
        name = found.metadata["Name"]
        if name == OURS:
            continue
        said, expression = declared(found.metadata)
        if name in OVERRIDES:
            expression = OVERRIDES[name].is_
        count = texts(found, folder / "licences" / name)
        if not count and not expression:
            sys.exit(f"bill: {name} has neither a licence's name ({said!r}) nor its text")
        components.append(component(name, found.version, expression, hashes.get(name.lower(), [])))
    made = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), UTC).isoformat().replace("+00:00", "Z")
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{OURS} {version}')}",
        "version": 1,
        "metadata": {
            "timestamp": made,
            "component": {
                "type": "application",
                "name": OURS,
                "version": version,
                "licenses": [{"expression": "Apache-2.0"}],
            },
        },
        "components": components,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bill-of-materials.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    return 0


def locked(text: str) -> dict[str, list[str]]:
    """SHA-256 of the files that a lock allows, by package."""
    found: dict[str, list[str]] = {}
    for block in re.split(r"\n(?=\S)", text):
        if name := re.match(r"([A-Za-z0-9._-]+)==", block):
            found[name[1].lower()] = re.findall(r"sha256:([0-9a-f]{64})", block)
    return found


def component(name: str, version: str, expression: str, hashes: list[str]) -> dict[str, Any]:
    return {
        "type": "library",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name.lower()}@{version}",
        "licenses": [{"expression": expression}] if expression else [],
        "externalReferences": [
            {
                "type": "distribution",
                "url": f"https://pypi.org/project/{name}/{version}/#files",
                "hashes": [{"alg": "SHA-256", "content": one} for one in hashes],
            }
        ],
    }


def texts(found: importlib.metadata.Distribution, folder: Path) -> int:
    """Copies the licences' texts of a package; how many there were."""
    count = 0
    for path in sorted(found.files or [], key=str):
        parts = path.parts
        if ".dist-info" not in parts[0] or not TEXTS.search(parts[-1]):
            continue
        to = folder.joinpath(*[part for part in parts[1:] if part != "licenses"])
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(found.locate_file(path)), to)
        count += 1
    return count


if __name__ == "__main__":
    sys.exit(main())
