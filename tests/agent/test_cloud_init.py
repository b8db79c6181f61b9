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

import pytest

from agent.cloud_init import MOST_BYTES, Refused, Rendering, check, render
from agent.protocol import Failed, decode_event
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
appliance_keys = ["/etc/data-mover/appliance.pem"]
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
        ({"time_limit": 5}, "a time limit that is none"),
        ({"configuration": CONFIGURATION + "#" + "x" * MOST_BYTES}, "too large"),
    ],
)
def test_what_makes_no_worker_is_refused(changed: dict[str, Any], what: str) -> None:
    with pytest.raises(MoverError, match=what) as caught:
        rendered(**changed)
    assert "SIGNATURE" not in str(caught.value)


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
        ((*url, "--secret", "DATA_MOVER_QUEUE_SAS=env:NOT_SET"), "a variable that is not set"),
        ((*url, "--environment", "X"), "not a variable of the environment"),
        ((*url, "--time-limit", "soon"), "a time limit that is none"),
        (("--package-url", "@/no/such"), "a file cannot be read"),
    ):
        said = place.dm(*words, *more, code=None)
        assert said.code in (1, 2)
        assert said.error[0] == what
        assert "SIGNATURE" not in said.out + said.err


def test_a_failed_event_is_one_of_the_protocol_s() -> None:
    event = {"event": "failed", "time": "2026-11-26T17:00:00.000001Z", "worker": "w", "step": "download", "what": "x"}
    found = decode_event(json.dumps(event | {"hint": "", "lines": ["a"]}).encode())
    assert isinstance(found, Failed)
    assert found.lines == ("a",)


def test_no_template_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("agent.cloud_init.__file__", str(tmp_path / "agent/cloud_init.py"))
    with pytest.raises(UsageError, match="template"):
        rendered()


if __name__ == "__main__":
    EXAMPLE.write_text(rendered())
