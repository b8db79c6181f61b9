# SPDX-License-Identifier: Apache-2.0
"""Lays the tellings of ours and of the oracles beside the truth of every image, and writes what came of it into the page.

`python -m tests.flr.oracles.table --python PYTHON [IMAGE...]`, or `make oracles`. PYTHON is that of the oracles' environment. With
images' names it prints their rows and writes nothing. The same images and versions give the same text.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import pytest

from tests.flr.corpus import truth
from tests.flr.corpus.catalogue import CATALOGUE, Sample, sample, telling
from tests.flr.corpus.image import opened
from tests.flr.oracles import volumes
from tests.flr.oracles.verdict import Verdict, verdict

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/file-systems.md"
LOCK = ROOT / "packaging/requirements/oracles.txt"
BEGIN, END = "<!-- written by `make oracles`: begin -->", "<!-- written by `make oracles`: end -->"
ORACLES = {
    "libyal": ("libfsext-python", "libfsxfs-python", "libfsntfs-python", "libfsfat-python"),
    "pytsk3": ("pytsk3",),
    "dissect": ("dissect-extfs", "dissect-xfs", "dissect-ntfs", "dissect-fat"),
}
"""And the packages that they are."""
SECONDS = 300
"""That an oracle may take for an image."""
HEAD = ("image", "truth", "ours", *ORACLES)


class Row(msgspec.Struct):
    """An image: its truth in words, ours, and for each oracle what it is worth or why it does not open; what it does not tell."""

    name: str
    truth: str
    ours: str
    cells: dict[str, str]
    reasons: dict[str, str]
    untold: dict[str, list[str]]


def ours(name: str, of: Sample) -> Verdict:
    listed = CATALOGUE[name]
    with opened(of.image) as disk:
        return verdict(of.truth, truth.told(telling(disk, listed.holds)), of.named, listed.untold)


def row(name: str, python: str) -> Row:
    listed, of = CATALOGUE[name], sample(name)
    own = ours(name, of)
    made = Row(name, f"{len(of.truth)} entries, {own.files} contents, by {listed.teller}", own.words, {}, {}, {})
    for oracle in ORACLES:
        told = asked(oracle, listed.holds, of.image, python)
        made.untold[oracle] = told.untold
        if told.why_not:
            made.cells[oracle], made.reasons[oracle] = "does not open", told.why_not
            continue
        facts = {fact.path: fact for fact in told.facts}
        untold = listed.untold | set(told.untold)
        found = verdict(of.truth, facts, of.named, untold, folder_sizes=False, stopped=told.stopped)
        made.cells[oracle] = found.words
        said = [fact.problem for fact in told.facts if fact.problem]
        if said and not found.equal:
            made.reasons[oracle] = said[0]
    return made


class Telling(msgspec.Struct):
    """As `tests.flr.oracles.tell` writes it, which is imported in the oracles' environment only."""

    facts: list[truth.Fact] = []
    untold: list[str] = []
    why_not: str = ""
    stopped: str = ""


def asked(oracle: str, holds: str, image: Path, python: str) -> Telling:
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "told"
        command = [python, "-m", "tests.flr.oracles.tell", oracle, holds, str(image), str(out)]
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return Telling(why_not=f"no answer within {SECONDS} s")
        if done.returncode or not out.exists():
            last = (done.stderr.strip().splitlines() or [""])[-1]
            return Telling(why_not=f"its process ended with {done.returncode}: {last}"[:300].rstrip(": "))
        return msgspec.msgpack.decode(out.read_bytes(), type=Telling)


# -- as text


def versions() -> str:
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)", LOCK.read_text(), flags=re.MULTILINE))
    return "; ".join(
        f"{oracle}: " + ", ".join(f"{package} {pinned[package]}" for package in packages)
        for oracle, packages in ORACLES.items()
    )


def text(rows: list[Row], assembled: list[volumes.Row]) -> str:
    lines = [_filled(f"Versions: {versions()}."), "", _cells(HEAD), _cells("---" for _ in HEAD)]
    lines += [_cells((row.name, row.truth, row.ours, *row.cells.values())) for row in rows]
    if assembled:
        head = ("volume or array", "bytes", "ours", *volumes.ORACLES)
        lines += ["", _cells(head), _cells("---" for _ in head)]
        lines += [_cells((row.name, f"{row.size:,}", row.ours, *row.cells.values())) for row in assembled]
    for title, said in (
        ("What there is no way to ask them for", _untold(rows)),
        ("What they said first where they were wrong", _reasons([*rows, *assembled])),
    ):
        lines += ["", f"{title}:", "", *map(_filled, said)]
    return "\n".join(lines) + "\n"


def _filled(line: str) -> str:
    indent = "  " if line.startswith("- ") else ""
    return textwrap.fill(line, 128, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _cells(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _untold(rows: list[Row]) -> list[str]:
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for oracle, fields in row.untold.items():
            beyond = [field for field in fields if field not in CATALOGUE[row.name].untold]
            if beyond and row.cells[oracle] != "does not open":
                found.setdefault((oracle, ", ".join(beyond)), []).append(CATALOGUE[row.name].holds)
    return [f"- {oracle}, {', '.join(dict.fromkeys(kinds))}: {fields}" for (oracle, fields), kinds in found.items()]


def _reasons(rows: Sequence[Row | volumes.Row]) -> list[str]:
    """Numbers of entries and blocks left out, and of a chain of libyal's sentences the second, which says what it is about."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for oracle, reason in row.reasons.items():
            sentences = re.sub(r"\b\d+\b|0x[0-9a-f]+", "N", reason).replace("`", "'").split(". lib")
            plain = "lib" + sentences[1] if len(sentences) > 1 else sentences[0]
            found.setdefault((oracle, plain[:160].rstrip(". ")), []).append(row.name)
    order = sorted(found.items(), key=lambda item: list(ORACLES).index(item[0][0]))
    return [f"- {oracle} ({', '.join(names)}): `{reason}`" for (oracle, reason), names in order]


def parted(page: str) -> tuple[str, str, str]:
    """What is before the written part, the part, and what is behind it."""
    before, begin, rest = page.partition(BEGIN + "\n")
    part, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE.name} lacks the two comments between which the table stands")
    return before + begin, part, end + after


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--python", required=True)
    parser.add_argument("images", nargs="*", metavar="IMAGE")
    given = parser.parse_args()
    rows: list[Row] = []
    try:
        for name in given.images or CATALOGUE:
            rows.append(row(name, given.python))
            print(_cells((rows[-1].name, rows[-1].ours, *rows[-1].cells.values())), flush=True)
        assembled = [] if given.images else list(volumes.rows(given.python))
    except pytest.skip.Exception as missing:  # whatever makes an image says what it lacks as tests do
        sys.exit(f"{missing}\nhint: the table is written as a whole or not at all")
    if given.images:
        print(text(rows, []))
        return
    before, _, after = parted(PAGE.read_text())
    PAGE.write_text(f"{before}\n{text(rows, assembled)}\n{after}")
    unexplained = [row.name for row in rows if row.ours != "equal" and not CATALOGUE[row.name].differs]
    if unexplained:
        sys.exit(
            f"ours differs from the truth: {', '.join(unexplained)}\nhint: mend it, or name and justify it in the page"
        )


if __name__ == "__main__":
    main()
