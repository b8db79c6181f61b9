# SPDX-License-Identifier: Apache-2.0
"""User-data for cloud-init: what is rendered, what is refused, and the example in docs/."""

from __future__ import annotations

import base64
import gzip
import json
import re
import stat
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agent.cloud_init import MOST_BYTES, Refused, Rendering, check, render
from agent.signing import Signer
from mover.errors import MoverError, UsageError
from tests.agent.conftest import Place

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs/example-user-data.yaml"
CONFIGURATION = """\
[queue]
service = "https://ACCOUNT.queue.core.windows.net"
[state]
url = "https://ACCOUNT.blob.core.windows.net/worker-state/westeurope"
[trust]
appliance_keys = ["11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="]
seal_key = "/var/lib/data-mover/seal.pem"
"""
WANTED: dict[str, Any] = {
    "package_url": "https://ACCOUNT.blob.core.windows.net/packages/data-mover.deb?sv=2021-12-02&sr=b&sp=r&sig=SIGNATURE",
    "package_sha256": "ab" * 32,
    "configuration": CONFIGURATION,
    "secrets": {"DATA_MOVER_QUEUE_SAS": "sv=2021-12-02&ss=q&srt=sco&sp=rwlacup&sig=SIGNATURE"},
}


def rendered(**changed: Any) -> str:
    return render(Rendering(**(WANTED | changed)))


def settings(text: str) -> dict[str, Any]:
    found = re.search(r'settings\.json\n    permissions: "0600"\n    content: (".*")\n', text)
    assert found
    inner: dict[str, Any] = json.loads(json.loads(found[1]))
    return inner


def test_the_example_is_what_is_rendered() -> None:
    assert EXAMPLE.read_text() == rendered(), "hint: python -m tests.agent.test_cloud_init writes it"


def test_everything_is_in_it_and_no_more_than_azure_takes() -> None:
    text = rendered(environment={"HTTPS_PROXY": "http://10.0.0.4:3128"}, time_limit=600, unattended_upgrades=False)
    found = settings(text)
    assert found["report"] == {
        "url": "https://ACCOUNT.queue.core.windows.net/workers-events".replace("ACCOUNT", "account"),
        "sas": WANTED["secrets"]["DATA_MOVER_QUEUE_SAS"],
        "identity": "",
    }
    assert (found["time_limit"], found["unattended_upgrades"], found["worker"]) == (600, False, "")
    assert found["environment"] == {"HTTPS_PROXY": "http://10.0.0.4:3128"}
    packed = re.search(r"encoding: gz\+b64\n    content: (\S+)\n", text)
    assert packed
    assert gzip.decompress(base64.b64decode(packed[1])) == (ROOT / "cloud-init/first-boot").read_bytes()
    assert len(text) < MOST_BYTES / 2


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"package_url": "http://example.org/x.deb?sig=SIGNATURE"}, "is not https"),
        ({"package_sha256": "ab"}, "not a SHA-256"),
        ({"configuration": "[queue]\nservise = 1\n"}, "an option that is not known"),
        ({"configuration": "[queue]\n"}, "no queue was named"),
        ({"secrets": {"PATH": "x"}}, "a secret that no worker reads"),
        ({"environment": {"A B": "x"}}, "not a variable"),
        ({"environment": {"A": "x\nB=y"}}, "not a variable"),
        ({"environment": {"DATA_MOVER_SAS": "SIGNATURE"}}, "a secret as a variable"),
        ({"environment": {"A": "a\x1bb"}}, "not a variable"),
        ({"secrets": {"DATA_MOVER_SAS": "se=2026-01-01 00:00&sig=SIGNATURE"}}, "a secret with a blank"),
        ({"secrets": {"DATA_MOVER_SAS": "sv=1&sig=SIGNATURE\nsv=2&sig=SIGNATURE"}}, "a secret with a blank"),
        ({"package_url": "https://user:SIGNATURE@example.org/x.deb"}, "not the URL of a package"),
        ({"package_url": "https://[x/y.deb?sig=SIGNATURE"}, "not the URL of a package"),
        ({"package_url": "https://example.org/x y.deb"}, "not the URL of a package"),
        ({"package_url": "http://localhost.example.org/x.deb"}, "is not https"),
        ({"configuration": CONFIGURATION.replace("westeurope", "westeurope?sv=1&sig=SIGNATURE")}, "a SAS in the conf"),
        ({"configuration": CONFIGURATION.replace("11qY", "/no/such")}, "a public key cannot be read"),
        ({"time_limit": 5}, "a time limit that is none"),
        ({"configuration": CONFIGURATION + "#" + "x" * MOST_BYTES}, "too large"),
    ],
)
def test_what_makes_no_worker_is_refused(changed: dict[str, Any], what: str) -> None:
    with pytest.raises(MoverError, match=what) as caught:
        rendered(**changed)
    assert "SIGNATURE" not in str(caught.value)


def test_a_key_that_is_a_file_here_is_told_as_it_must_be_written(tmp_path: Path) -> None:
    signer = Signer.generate()
    pem = tmp_path / "appliance.pem"
    public = Ed25519PublicKey.from_public_bytes(signer.public)
    pem.write_bytes(public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    text = CONFIGURATION.replace("11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", str(pem))
    with pytest.raises(UsageError) as caught:
        rendered(configuration=text)
    assert base64.b64encode(signer.public).decode() in caught.value.hint


def test_whose_right_reports_a_failure_is_the_daemon_s() -> None:
    def report(**secrets: str) -> dict[str, Any]:
        found: dict[str, Any] = settings(rendered(secrets=secrets))["report"]
        return found

    key = base64.b64encode(bytes(64)).decode()
    assert report() == report() | {"sas": "", "identity": ""}
    assert report(DATA_MOVER_SAS="sv=1&sr=c&sig=x")["sas"] == "", "a container's is for no queue"
    assert report(DATA_MOVER_SAS="?sv=1&ss=q&sig=x")["sas"] == "sv=1&ss=q&sig=x"
    for secret in ({"DATA_MOVER_QUEUE_ACCOUNT_KEY": key}, {"DATA_MOVER_CONNECTION_STRING": f"AccountKey={key}"}):
        made = parse_qs(report(**secret)["sas"])
        assert (made["ss"], made["srt"], sorted(made["sp"][0])) == (["q"], ["co"], ["a", "c"])
        assert key not in json.dumps(report(**secret))
    assert settings(rendered(identity="ID"))["environment"] == {"AZURE_CLIENT_ID": "ID"}


@pytest.mark.parametrize(
    ("more", "environment", "name"),
    [
        ("", {}, ""),
        ('[worker]\nname = "w1"\n', {}, "w1"),
        ('[worker]\njobs = 1\n"name" = "w2"\n', {}, "w2"),
        ('worker.name = "w3"\n', {}, "w3"),
        ("", {"DATA_MOVER_WORKER": "w4"}, "w4"),
    ],
)
def test_a_failed_event_has_the_name_that_the_worker_would_have(
    more: str, environment: dict[str, str], name: str
) -> None:
    text = more + CONFIGURATION if more.startswith("worker.") else CONFIGURATION + more
    assert settings(rendered(configuration=text, environment=environment))["worker"] == name


def test_what_looks_like_a_part_of_the_template_is_none() -> None:
    text = CONFIGURATION + "# @FIRST_BOOT@ @SETTINGS@\n"
    assert settings(rendered(configuration=text))["configuration"] == text


def test_keys_that_cloud_init_would_leave_out_are_refused() -> None:
    with pytest.raises(Refused, match="runcmdd"):
        check(rendered().replace("\nruncmd:", "\nruncmdd:"))
    with pytest.raises(Refused, match="begin as cloud-config"):
        check(rendered().replace("#cloud-config", "# cloud-config"))


def test_by_the_command_line(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    config, out = place.folder / "agent.toml", place.folder / "user-data"
    config.write_text(CONFIGURATION)
    (place.folder / "url").write_text(WANTED["package_url"] + "\n")
    monkeypatch.setenv("QUEUE_SAS", WANTED["secrets"]["DATA_MOVER_QUEUE_SAS"])
    words = ["cloud-init", "render", "--package-sha256", "ab" * 32, "--config", config]
    url = ("--package-url", f"@{place.folder / 'url'}")
    secret = ("--secret", "DATA_MOVER_QUEUE_SAS=env:QUEUE_SAS")
    place.dm(*words, *url, *secret, "--output", out)
    assert out.read_text() == rendered()
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert place.dm(*words, *url, *secret).out == rendered()
    for more, what in (
        ((*url, *secret, "--output", out), "the user-data cannot be written"),
        (("--package-url", WANTED["package_url"]), "a package's URL with a query"),
        ((*url, "--secret", "DATA_MOVER_QUEUE_SAS=sig=SIGNATURE"), "a secret as an argument"),
        ((*url, "--secret", "DATA_MOVER_QUEUE_SAS=env:NOT_SET"), "the secret's variable is not set"),
        ((*url, "--environment", "X"), "not a variable of the environment"),
        ((*url, "--time-limit", "soon"), "a time limit that is none"),
        (("--package-url", "@/no/such"), "the secret's file cannot be read"),
    ):
        said = place.dm(*words, *more, code=None)
        assert said.code in (1, 2)
        assert said.error[0] == what
        assert "SIGNATURE" not in said.out + said.err


def test_no_template_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("agent.cloud_init.__file__", str(tmp_path / "agent/cloud_init.py"))
    with pytest.raises(UsageError, match="template"):
        rendered()


if __name__ == "__main__":
    EXAMPLE.write_text(rendered())
