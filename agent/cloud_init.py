# SPDX-License-Identifier: Apache-2.0
"""User-data for cloud-init that makes a worker of an empty VM: the template in cloud-init/, filled and looked at.

Pure but for the two files of the template's folder and the `cloud-init` program, where that is installed. What the VM then does is
`cloud-init/first-boot`'s.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from agent import config as configuration
from agent.config import Config
from mover.errors import MoverError, UsageError
from mover.store.azure_location import account_of, redact

MOST_BYTES = 64 * 1024
"""Azure's limit for customData."""
KEYS = frozenset({"locale", "package_update", "write_files", "runcmd"})
"""What may stand at the top: `cloud-init schema` does not report a key there that it does not know."""
SECRETS = re.compile(r"DATA_MOVER_(QUEUE_)?(SAS|ACCOUNT_KEY|CONNECTION_STRING)\Z")


class Refused(MoverError):
    """What was rendered is no user-data."""

    hint_default = "this is a defect of the template: report it"


class Rendering(msgspec.Struct, frozen=True, kw_only=True):
    """`package_url` may have a SAS; `configuration` is agent.toml's text; `secrets` by their variables' names. `identity`: the
    client id of a managed identity that reports where there is no SAS."""

    package_url: str
    package_sha256: str
    configuration: str
    secrets: Mapping[str, str] = {}
    environment: Mapping[str, str] = {}
    identity: str = ""
    time_limit: int = 900
    unattended_upgrades: bool = True


def folder() -> Path:
    """Where the template is: in the tree, or beside the package's library."""
    library = Path(__file__).resolve().parents[1]
    for place in (library / "cloud-init", library.parent / "share/cloud-init"):
        if (place / "user-data.tmpl").exists():
            return place
    raise UsageError("the template of the user-data is not here", str(library), "install the Debian package")


def render(wanted: Rendering) -> str:
    """The user-data. UsageError says what is wrong with what is wanted."""
    config = _check(wanted)
    place = folder()
    settings = {
        "package_url": wanted.package_url,
        "package_sha256": wanted.package_sha256.lower(),
        "time_limit": wanted.time_limit,
        "unattended_upgrades": wanted.unattended_upgrades,
        "configuration": wanted.configuration,
        "secrets": dict(wanted.secrets),
        "environment": dict(wanted.environment),
        "worker": "" if _named_by_host(wanted) else config["worker.name"],
        "report": _report(config, wanted),
    }
    packed = gzip.compress((place / "first-boot").read_bytes(), mtime=0)
    text = (place / "user-data.tmpl").read_text()
    text = text.replace("@SETTINGS@", json.dumps(json.dumps(settings)))  # a JSON text is a YAML text
    text = text.replace("@FIRST_BOOT@", base64.b64encode(packed).decode())
    check(text)
    return text


def check(text: str) -> None:
    """Refused when cloud-init would not take it, or would leave some of it out without a word."""
    size = len(text.encode())
    if size > MOST_BYTES:
        raise UsageError("the user-data is too large", f"{size} of {MOST_BYTES} bytes", "shorten the configuration")
    if not text.startswith("#cloud-config\n"):
        raise Refused("the user-data does not begin as cloud-config", text[:40])
    strange = set(re.findall(r"^([^\s#-][^:\s]*):", text, re.MULTILINE)) - KEYS
    if strange:
        raise Refused("the user-data has keys that cloud-init does not know", ", ".join(sorted(strange)))
    program = shutil.which("cloud-init")
    if program is None:
        return
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:  # of mode 0600
        file.write(text)
        file.flush()
        words = [program, "schema", "--config-file", file.name]
        done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if "rror" in line]
        raise Refused(
            "cloud-init does not take the user-data", re.sub(r"sig=[^\s\"'&]*", "sig=...", " ".join(said))[:300]
        )


def _check(wanted: Rendering) -> Config:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", wanted.package_sha256):
        raise UsageError("not a SHA-256", wanted.package_sha256, "64 hexadecimal digits: sha256sum FILE")
    if not wanted.package_url.startswith(("https://", "http://127.0.0.1:", "http://localhost:")):
        raise UsageError("the package's URL is not https", redact(wanted.package_url))
    for name in wanted.secrets:
        if not SECRETS.match(name):
            hint = "DATA_MOVER_QUEUE_SAS, DATA_MOVER_SAS, or one of the other variables of docs/operations.md"
            raise UsageError("a secret that no worker reads", name, hint)
    for name, text in wanted.environment.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or "\n" in text:
            raise UsageError("not a variable of the environment", name)
    if not 60 <= wanted.time_limit <= 7200:
        raise UsageError("a time limit that is none", f"{wanted.time_limit} s", "60 to 7200 seconds")
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(wanted.configuration)
        file.flush()
        try:
            return configuration.load(file.name, dict(wanted.environment))
        except MoverError as error:
            error.value = error.value.replace(file.name, "the configuration")
            raise


def _named_by_host(wanted: Rendering) -> bool:
    """The configuration names no worker: each VM has its own name."""
    return not re.search(
        r"^\s*name\s*=.*", wanted.configuration.partition("[worker]")[2].partition("\n[")[0], re.MULTILINE
    )


def _report(config: Config, wanted: Rendering) -> dict[str, Any] | None:
    """Where first-boot puts a `failed` event; a queue that is no Azure queue is out of its reach."""
    if not config.is_azure:
        return None
    sas = wanted.secrets.get("DATA_MOVER_QUEUE_SAS") or wanted.secrets.get("DATA_MOVER_SAS", "")
    account, _, _ = account_of(config["queue.service"])
    return {
        "url": f"{account}/{config['queue.events'] or config['queue.name'] + '-events'}",
        "sas": sas,
        "identity": wanted.identity,
    }
