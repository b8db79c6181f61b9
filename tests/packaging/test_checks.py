# SPDX-License-Identifier: Apache-2.0
"""Each check of packaging/checks/ passes on this tree and fails, with the reason, on a tree that is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHECKS = Path(__file__).parents[2] / "packaging/checks"


def run(check: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, CHECKS / check, *arguments], capture_output=True, text=True)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize("check", ["imports.py", "licences.py", "paths.py"])
def test_this_tree_passes(check: str) -> None:
    done = run(check)
    assert (done.returncode, done.stderr) == (0, "")


# --- imports.py ---


@pytest.mark.parametrize(
    ("path", "statement", "name"),
    [
        ("mover/a.py", "import agent", "agent"),
        ("mover/store/a.py", "from flr.web import app", "flr.web"),
        ("mover/a.py", "def f():\n    import agent.cli", "agent.cli"),
        ("mover/a.py", "if TYPE_CHECKING:\n    from flr import x", "flr"),
        ("mover/a.py", "from ..agent import x", "agent"),
        ("mover/a.py", "import importlib\nimportlib.import_module('flr.web')", "flr.web"),
        ("flr/a.py", "import mover\nfrom agent import cli", "agent"),
        ("agent/a.py", "from tests.azurite import Azurite", "tests.azurite"),
        ("flr/fs/a.py", "from dissect.xfs import XFS", "dissect.xfs"),
        ("agent/a.py", "import importlib\nimportlib.import_module('pytsk3')", "pytsk3"),
        ("packaging/rescue/rescue.py", "import mover.format", "mover.format"),
    ],
)
def test_an_import_against_the_grain_fails(tmp_path: Path, path: str, statement: str, name: str) -> None:
    write(tmp_path / path, statement)
    done = run("imports.py", tmp_path)
    assert done.returncode == 1
    line = statement.count("\n") + 1
    assert done.stderr.startswith(f"{path}:{line}: ")
    assert f" must not import {name}\nhint: " in done.stderr


def test_imports_along_the_grain_pass(tmp_path: Path) -> None:
    write(tmp_path / "agent/a.py", "import flr.web\nimport mover\nimport agents")
    write(tmp_path / "flr/a.py", "import mover.store\nfrom . import b")
    write(tmp_path / "mover/a.py", "from mover.agent_like import x\nimport zstandard")
    write(tmp_path / "tests/a.py", "import agent, flr, mover")
    done = run("imports.py", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


# --- licences.py ---


def licence_check(folder: Path, metadata: str) -> subprocess.CompletedProcess[str]:
    write(folder / "site/thing-1.0.dist-info/METADATA", f"Metadata-Version: 2.4\nName: thing\nVersion: 1.0\n{metadata}")
    write(folder / "lock.txt", "thing==1.0 ; sys_platform == 'linux' \\\n    --hash=sha256:00\n")
    return run("licences.py", folder / "lock.txt", folder / "site")


@pytest.mark.parametrize(
    "metadata",
    [
        "License-Expression: MIT",
        "License-Expression: GPL-3.0-only OR (MIT AND Zlib)",
        "Classifier: License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)",
        "License: CC0-1.0 OR Apache-2.0",
        "License-Expression: LGPL-2.1-or-later",
        "License-Expression: EPL-2.0",
    ],
)
def test_an_allowed_licence_passes(tmp_path: Path, metadata: str) -> None:
    done = licence_check(tmp_path, metadata)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ("License-Expression: AGPL-3.0-only", "AGPL-3.0-only"),
        ("License-Expression: MIT AND GPL-2.0-only", "MIT AND GPL-2.0-only"),
        ("License-Expression: MIT OR", "MIT OR"),
        ("License-Expression: (MIT", "(MIT"),
        ("License-Expression: GPL-3.0-or-later WITH GCC-exception-3.1", "GPL-3.0-or-later WITH GCC-exception-3.1"),
        (
            "Classifier: License :: OSI Approved :: MIT License\nClassifier: License :: OSI Approved :: GPL v2",
            "MIT License, GPL v2",
        ),
        ("Classifier: License :: OSI Approved :: BSD License", "BSD License"),
        ("License: Do what you like", "Do what you like"),
        ("Summary: silent about it", "unknown"),
    ],
)
def test_another_licence_fails(tmp_path: Path, metadata: str, said: str) -> None:
    done = licence_check(tmp_path, metadata)
    assert done.returncode == 1
    assert done.stderr.startswith(f"thing: licence {said!r} is not in the list of what we ship\nhint: ")


def test_a_package_that_is_not_installed_is_unknown(tmp_path: Path) -> None:
    licence_check(tmp_path, "License-Expression: MIT")
    write(tmp_path / "lock.txt", "absent==1.0\n")
    done = run("licences.py", tmp_path / "lock.txt", tmp_path / "site")
    assert done.returncode == 1
    assert done.stderr.startswith("absent: it is not installed, so its licence is unknown; hint: make setup\n")


def test_an_empty_lock_proves_nothing(tmp_path: Path) -> None:
    write(tmp_path / "lock.txt", "")
    assert run("licences.py", tmp_path / "lock.txt").returncode == 1


# --- paths.py ---

# In pieces, for this file is checked too.
SLASH = "/"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a.md", f"see {SLASH}work/main"),
        ("a.py", f'X = "{SLASH}farm/x"'),
        ("a.sh", f"pip install -f {SLASH}opt/wheels x"),
        ("packaging/requirements/x.txt", f"--extra-index-{'url'} https://mirror.example/simple\n"),
        ("packaging/requirements/x.txt", f"--find-{'links'} wheels\n"),
        ("packaging/requirements/x.txt", "x @ file:x.whl\n"),
        ("packaging/azurite/package-lock.json", '"resolved": "https://mirror.example/x.tgz"'),
    ],
)
def test_a_path_of_one_machine_fails(tmp_path: Path, path: str, text: str) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    write(tmp_path / path, f"first line\n{text}\n")
    done = run("paths.py", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{path}:2: ")
    assert " belongs to one machine\nhint: " in done.stderr


def test_paths_that_everybody_has_pass(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    write(tmp_path / "a.py", "x = '/tmp/work/x', '/opt/data-mover', f'{folder}/work/x', 'https://farm/'\n")
    write(tmp_path / "packaging/requirements/x.txt", "x==1 \\\n    --hash=sha256:00\n")
    write(tmp_path / "packaging/azurite/package-lock.json", '"resolved": "https://registry.npmjs.org/x.tgz"')
    done = run("paths.py", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
