# SPDX-License-Identifier: Apache-2.0
"""The commands of README.md and docs/operations.md are run, one shell for a page, and say what the page says they say.

What differs from run to run is compared by its form: ids, times, durations, numbers of API calls, the folder. An id of the
page stands for the one that the run had in its place, in later commands and outputs too. `...` stands for the rest of a line.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.agent.conftest import VARIABLES

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
VARYING = re.compile(
    r"(?P<moment>\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d)?(?:\.\d+)?Z)|(?P<id>\b[0-9a-f]{12,32}\b)"
    r"|(?P<duration>\d+\.\d s|\d+:\d\d)(?=, )|(?P<calls>\d+)(?= API calls)|(?P<folder>/srv)(?=/)|(?P<rest>\.\.\.)"
)
FORMS = {
    "moment": r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d)?(?:\.\d+)?Z",
    "duration": r"(?:\d+\.\d s|\d+:\d\d)",
    "calls": r"\d+",
    "rest": ".*",
}
MISSING = "the parser of file systems runs without: "
PROGRESS = re.compile(r"^[^:]+(?: [^:]+)?: \d+ %, |^job \S+ waits for a worker$")


@dataclass
class Page:
    """What has been learnt so far: which id of the page is which of this run."""

    folder: Path
    ids: dict[str, str] = field(default_factory=dict)

    def command(self, text: str) -> str:
        for shown, real in self.ids.items():
            text = text.replace(shown, real)
        return text

    def compare(self, expected: str, got: str) -> None:
        names: list[str] = []
        pattern, at = "", 0
        for found in VARYING.finditer(expected):
            pattern += re.escape(expected[at : found.start()])
            at = found.end()
            kind = found.lastgroup or ""
            if kind == "folder":
                pattern += re.escape(str(self.folder))
            elif kind == "id" and found[0] in self.ids:
                pattern += re.escape(self.ids[found[0]])
            elif kind == "id" and found[0] in names:
                pattern += f"(?P=id{names.index(found[0])})"
            elif kind == "id":
                pattern += f"(?P<id{len(names)}>[0-9a-f]{{{len(found[0])}}})"
                names.append(found[0])
            else:
                pattern += FORMS[kind]
        match = re.fullmatch(pattern + re.escape(expected[at:]), got)
        assert match, f"the page says\n{expected}\nand it was\n{got}"
        for number, name in enumerate(names):
            self.ids[name] = match[f"id{number}"]
            self.ids.setdefault(name[:12], match[f"id{number}"][:12])


def commands(page: Path) -> list[tuple[str, str]]:
    """(command, output) in the order of the page."""
    found = []
    for block in BLOCK.findall(page.read_text()):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, _plain(output)))
    return found


def _plain(output: str) -> str:
    """Without progress and layers of protection that are missing (both depend on the machine), empty lines and spaces at the ends
    of lines."""
    lines = (line.rstrip() for line in output.splitlines())
    return "\n".join(line for line in lines if line and not PROGRESS.match(line) and not line.startswith(MISSING))


@pytest.mark.parametrize("name", ["README.md", "docs/operations.md"])
def test_the_page_is_true(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    page = Page(tmp_path)
    found = commands(ROOT / name)
    assert len(found) >= 5
    shell = subprocess.Popen(
        ["/bin/bash"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that what the page leaves running can be ended with the shell
    )
    assert shell.stdin is not None
    assert shell.stdout is not None
    try:
        for command, expected in found:
            real = page.command(command)
            # The exit code stays what it was, for a command that shows it.
            shell.stdin.write(f"{real}\ncode=$?; printf '\\n--end\\n'; (exit $code)\n")
            shell.stdin.flush()
            lines = []
            for line in shell.stdout:
                if line == "--end\n":
                    break
                lines.append(line)
            print(f"$ {real}\n{''.join(lines)}")
            page.compare(expected, _plain("".join(lines)))
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
        shell.communicate()


def test_every_verb_and_option_of_the_programs_is_on_the_page() -> None:
    page = (ROOT / "docs/operations.md").read_text()
    shown = subprocess.run(
        [sys.executable, "-m", "agent.daemon", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for option in set(re.findall(r"--[a-z-]+", shown)) - {"--help"}:
        assert option in page, option
    shown = subprocess.run(
        [sys.executable, "-m", "agent.cli", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for verb in re.findall(r"^    ([a-z]+) ", shown, re.MULTILINE):
        assert f"data-mover {verb}" in page or f"`{verb}" in page, verb


def test_every_exit_code_is_on_the_page() -> None:
    from agent.errors import EXIT_STOPPED, EXIT_UNEXPECTED
    from mover.errors import MoverError

    codes, kinds = {0, EXIT_STOPPED, EXIT_UNEXPECTED}, [MoverError]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        codes.add(kind.exit_code)
    page = (ROOT / "docs/operations.md").read_text()
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)} == codes


def test_every_variable_of_the_environment_is_on_the_page() -> None:
    page = (ROOT / "docs/operations.md").read_text()
    sources = "".join(path.read_text() for folder in ("agent", "mover") for path in (ROOT / folder).rglob("*.py"))
    for name in set(re.findall(r"DATA_MOVER_[A-Z_]+[A-Z]", sources)):
        assert name.removesuffix("_FILE") in page, name
