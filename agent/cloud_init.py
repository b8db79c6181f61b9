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
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from azure.storage.queue import AccountSasPermissions, ResourceTypes, Services, generate_account_sas

from agent import config as configuration
from agent.appliance import QueueNames
from agent.config import Config
from agent.queue.open import queue_credential
from agent.signing import load_public
from mover.clock import SYSTEM, Clock
from mover.errors import MoverError, UsageError
from mover.store.azure_credentials import AccountKey, Sas
from mover.store.azure_location import account_of, redact

MOST_BYTES = 65535
"""Azure's limit for customData."""
REPORT_DAYS = 30
"""How long after rendering a VM that is made with an account's key can report a failure."""
KEYS = frozenset({"locale", "package_update", "write_files", "runcmd"})
"""What may stand at the top: `cloud-init schema` does not report a key there that it does not know."""
SECRETS = re.compile(r"DATA_MOVER_(QUEUE_)?(SAS|ACCOUNT_KEY|CONNECTION_STRING)\Z")
SECRET_TEXT = re.compile(r"[!-~]+\Z")


class Refused(MoverError):
    """What was rendered is no user-data."""

    hint_default = "this is a defect of the template: report it"


class Rendering(msgspec.Struct, frozen=True, kw_only=True):
    """`package_url` may have a SAS; `configuration` is agent.toml's text; `secrets` by their variables' names. `identity`: the
    client id of a managed identity, where the VM has several."""

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


def render(wanted: Rendering, clock: Clock = SYSTEM) -> str:
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
        "environment": {**wanted.environment, **({"AZURE_CLIENT_ID": wanted.identity} if wanted.identity else {})},
        "worker": _name(wanted),
        "report": _report(config, wanted, clock),
    }
    packed = gzip.compress((place / "first-boot").read_bytes(), mtime=0)
    parts = {
        "@SETTINGS@": json.dumps(json.dumps(settings)),  # a JSON text is a YAML text
        "@FIRST_BOOT@": base64.b64encode(packed).decode(),
    }
    text = re.sub("@[A-Z_]+@", lambda found: parts[found[0]], (place / "user-data.tmpl").read_text())
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
    try:
        url = urlsplit(wanted.package_url)
    except ValueError:
        raise UsageError("not the URL of a package", redact(wanted.package_url)) from None
    if url.scheme != "https" and not (url.scheme == "http" and url.hostname in ("127.0.0.1", "localhost")):
        raise UsageError("the package's URL is not https", redact(wanted.package_url))
    if url.username is not None or not SECRET_TEXT.match(wanted.package_url):
        raise UsageError("not the URL of a package", redact(url.path), "no password, no blank and no sign beyond ASCII")
    for name, text in wanted.secrets.items():
        if not SECRETS.match(name):
            hint = "DATA_MOVER_QUEUE_SAS, DATA_MOVER_SAS, or one of the other variables of docs/operations.md"
            raise UsageError("a secret that no worker reads", name, hint)
        if not SECRET_TEXT.match(text):
            raise UsageError("a secret with a blank, a line's end or a sign beyond ASCII", name)
    for name, text in wanted.environment.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or not text.isprintable():
            raise UsageError("not a variable of the environment", name)
        if SECRETS.match(name):
            raise UsageError("a secret as a variable of the environment", name, f"--secret {name}=@FILE")
    if not 60 <= wanted.time_limit <= 7200:
        raise UsageError("a time limit that is none", f"{wanted.time_limit} s", "60 to 7200 seconds")
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(wanted.configuration)
        file.flush()
        try:
            config = configuration.load(file.name, dict(wanted.environment))
        except MoverError as error:
            error.value = error.value.replace(file.name, "the configuration")
            raise
    if "sig=" in wanted.configuration.lower():
        hint = "everybody on the VM may read it: --secret DATA_MOVER_SAS=@FILE"
        raise UsageError("a SAS in the configuration", "", hint)
    for key in config["trust.appliance_keys"]:
        itself = base64.b64encode(load_public(key)).decode()
        if key != itself:
            raise UsageError(
                "an appliance's key as a file, which the VM does not have", key, f"the key itself: {itself}"
            )
    return config


def _name(wanted: Rendering) -> str:
    """The worker's, if the configuration or the environment says it: else each VM has its host's."""
    section = tomllib.loads(wanted.configuration).get("worker", {})
    return str(wanted.environment.get("DATA_MOVER_WORKER") or section.get("name", ""))


def _report(config: Config, wanted: Rendering, clock: Clock) -> dict[str, Any] | None:
    """Where first-boot puts a `failed` event, and by which right: the daemon's own, but of an account's key only a SAS for that.
    None: a queue that is no Azure queue is out of its reach."""
    if not config.is_azure:
        return None
    account, name, _ = account_of(config["queue.service"])
    found = queue_credential(config["queue.service"], {**wanted.environment, **wanted.secrets})
    if isinstance(found, AccountKey):
        sas = generate_account_sas(
            name,
            found.key,
            ResourceTypes(container=True, object=True),
            AccountSasPermissions(add=True, create=True),
            datetime.fromtimestamp(clock.wall(), UTC) + timedelta(days=REPORT_DAYS),
            services=Services(queue=True),
        )
    else:
        sas = found.token if isinstance(found, Sas) else ""
    return {
        "url": f"{account}/{config['queue.events'] or QueueNames.of(config['queue.name']).events}",
        "sas": sas,
        "identity": wanted.identity,
    }
