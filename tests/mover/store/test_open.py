# SPDX-License-Identifier: Apache-2.0
"""A URL and the environment choose store and credential; nothing of a URL that may be shown is a secret."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mover.errors import UsageError
from mover.store.azure import AzureBlobStore
from mover.store.azure_credentials import AccountKey, Credential, Sas
from mover.store.azure_location import ContainerLocation, parse_location
from mover.store.local import LocalStore
from mover.store.open import open_store, redact
from tests.azurite import Azurite, unsigned_token
from tests.mover.store.conformance import names, read
from tests.mover.store.test_azure import make_container, sas

URL = "https://account.blob.core.windows.net/container/folder"
KEY = "a2V5"  # Base64 of "key"


def opened(url: str, environ: dict[str, str]) -> Credential:
    """The credential that was chosen."""
    import mover.store.open

    location = parse_location(url)
    return mover.store.open.find_credential(location.account, location.query, environ)


# -- folders


@pytest.mark.parametrize("prefix", ["file://", "file://localhost", "FILE://"])
def test_a_folder(tmp_path: Path, prefix: str) -> None:
    store = open_store(f"{prefix}{tmp_path}/with%20blank%3F", {})
    assert isinstance(store, LocalStore)
    store.put("a", [b"x"])
    assert (tmp_path / "with blank?" / "a").read_bytes() == b"x"
    store.close()


@pytest.mark.parametrize(
    "url", ["file:relative", "file://host/path", "file:///a?b", "file:///a#b", "file://", "file:///a%00"]
)
def test_what_is_no_folder_of_this_host(url: str) -> None:
    with pytest.raises(UsageError, match="not the URL of a folder"):
        open_store(url, {})


def test_a_folder_s_url_does_not_import_azure_s_modules(tmp_path: Path) -> None:
    code = (
        "import sys; from mover.store.open import open_store; open_store(sys.argv[1], {}).put('a', [b'x']); "
        "print([name for name in sys.modules if name.split('.')[0] in ('azure', 'requests', 'http')])"
    )
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    ran = subprocess.run(
        [sys.executable, "-c", code, f"file://{tmp_path}"], env=environ, capture_output=True, text=True
    )
    assert (ran.stdout, ran.stderr) == ("[]\n", "")


@pytest.mark.parametrize("url", ["", "/path", "s3://bucket/a", "ftp://host/a", "account.blob.core.windows.net/c"])
def test_what_is_no_repository(url: str) -> None:
    with pytest.raises(UsageError, match=r"not the URL of a repository.*hint: file:///path"):
        open_store(url, {})


# -- containers


@pytest.mark.parametrize(
    ("url", "found"),
    [
        (
            "https://acc.blob.core.windows.net/c",
            ContainerLocation("https://acc.blob.core.windows.net", "acc", "c", ""),
        ),
        (
            "https://acc.privatelink.blob.core.usgovcloudapi.net:8443/c/a/b%20c/?sig=x",
            ContainerLocation(
                "https://acc.privatelink.blob.core.usgovcloudapi.net:8443", "acc", "c", "a/b c/", "sig=x"
            ),
        ),
        (
            "http://127.0.0.1:10000/devacct/c/f",
            ContainerLocation("http://127.0.0.1:10000/devacct", "devacct", "c", "f/"),
        ),
        ("http://[::1]:10000/devacct/c", ContainerLocation("http://[::1]:10000/devacct", "devacct", "c", "")),
        ("http://azurite:10000/devacct/c", ContainerLocation("http://azurite:10000/devacct", "devacct", "c", "")),
        ("http://acc.blob.localhost:1/c", ContainerLocation("http://acc.blob.localhost:1", "acc", "c", "")),
        (
            "https://acc.blob.core.windows.net/$root",
            ContainerLocation("https://acc.blob.core.windows.net", "acc", "$root", ""),
        ),
    ],
)
def test_where_a_url_points(url: str, found: ContainerLocation) -> None:
    assert parse_location(url) == found


def test_a_location_s_own_url_has_no_query() -> None:
    location = parse_location("https://acc.blob.core.windows.net/c/a%20b?sig=secret")
    assert location.url == "https://acc.blob.core.windows.net/c/a%20b"
    assert location.object_url("x/y") == "https://acc.blob.core.windows.net/c/a%20b/x/y"
    assert "secret" not in repr(location)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://acc.blob.core.windows.net", "names no container"),
        ("https://acc.blob.core.windows.net/", "names no container"),
        ("http://127.0.0.1:10000/devacct", "names no container"),
        ("https://acc.blob.core.windows.net/c//d", "names no container"),
        ("https://acc.blob.core.windows.net/c/../d", "names no container"),
        ("https:///c", "not a container's URL"),
        ("https://user:hidden@acc.blob.core.windows.net/c", "not a container's URL"),
        ("https://acc.blob.core.windows.net/c#hidden", "not a container's URL"),
        ("https://acc.blob.core.windows.net:port/c?hidden", "not a URL"),
        ("http://acc.blob.core.windows.net/c?hidden", "in the clear"),
        ("https://acc.blob.core.windows.net/c&sv=1&sig=hidden", "SAS in the URL's path"),
        ("https://acc.blob.core.windows.net/c/f%3Fsv=1&sig=hidden", "SAS in the URL's path"),
    ],
)
def test_what_is_no_container(url: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        open_store(url, {"DATA_MOVER_SAS": "sig=x"})
    assert "hidden" not in str(refused.value)
    assert "hint: " in str(refused.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"{URL}?sv=1&sig=secret", URL),
        (f"{URL}#secret", URL),
        ("https://user:secret@host/c?sig=secret", "https://host/c"),
        ("https://user:secret@host", "https://host"),
        ("file:///path", "file:///path"),
        (f"{URL}&sv=1&sig=secret", URL),
        (f"{URL}%3Fsv=1&sig=secret", URL),
        ("container/name", "container/name"),
        ("no url?secret", "(a text that is no URL is not shown)"),
        ("sv=2021&sig=secret", "(a text that is no URL is not shown)"),
        ("AccountName=a;AccountKey=secret", "(a text that is no URL is not shown)"),
    ],
)
def test_redact(url: str, shown: str) -> None:
    assert redact(url) == shown


# -- credentials


def test_the_credential_s_order(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY + "\n")
    (tmp_path / "sas").write_text("?sig=file\n")
    connection = f"DefaultEndpointsProtocol=https;AccountName=other;AccountKey={KEY}=;EndpointSuffix=x"
    environ = {"DATA_MOVER_ACCOUNT_KEY_FILE": str(tmp_path / "key")}
    assert opened(URL, environ) == AccountKey("account", KEY)
    environ["DATA_MOVER_ACCOUNT_KEY"] = "eA=="
    assert opened(URL, environ) == AccountKey("account", "eA==")
    environ["DATA_MOVER_CONNECTION_STRING"] = connection
    assert opened(URL, environ) == AccountKey("other", KEY + "=")
    environ["DATA_MOVER_CONNECTION_STRING"] = "BlobEndpoint=https://x;SharedAccessSignature=sv=1&sig=a%3D"
    assert opened(URL, environ) == Sas("sv=1&sig=a%3D")
    environ["DATA_MOVER_SAS_FILE"] = str(tmp_path / "sas")
    assert opened(URL, environ) == Sas("sig=file")
    environ["DATA_MOVER_SAS"] = "?sig=environment"
    assert opened(URL, environ) == Sas("sig=environment")
    assert opened(URL + "?sig=url", environ) == Sas("sig=url")


def test_without_any_it_is_the_worker_s_identity() -> None:
    from azure.identity import DefaultAzureCredential

    credential = opened(URL, {})
    assert isinstance(credential, DefaultAzureCredential)
    credential.close()


def test_files_and_strings_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for environ, said in (
        ({"DATA_MOVER_SAS_FILE": str(tmp_path / "absent")}, "DATA_MOVER_SAS_FILE cannot be read"),
        ({"DATA_MOVER_SAS_FILE": str(tmp_path / "binary")}, "not ASCII"),
        ({"DATA_MOVER_ACCOUNT_KEY_FILE": str(tmp_path / "empty")}, "is empty"),
        ({"DATA_MOVER_CONNECTION_STRING": "AccountName=secret"}, "neither AccountKey nor"),
    ):
        with pytest.raises(UsageError, match=said) as refused:
            open_store(URL, environ)
        assert "secret" not in str(refused.value)


def test_credentials_show_no_secret() -> None:
    assert "secret" not in repr(Sas("sig=secret")) + repr(AccountKey("account", "secret"))


# -- against Azurite


@pytest.mark.azurite
@pytest.mark.parametrize("kind", ["sas in the url", "sas", "connection string", "key in a file"])
def test_each_kind_of_credential_works(azurite: Azurite, tmp_path: Path, kind: str) -> None:
    url = make_container(azurite)
    (tmp_path / "key").write_text(azurite.account_key)
    signature = sas(azurite, url, "rcwdl")
    store = {
        "sas in the url": lambda: open_store(f"{url}/f?{signature}", {}),
        "sas": lambda: open_store(url + "/f", {"DATA_MOVER_SAS": signature}),
        "connection string": lambda: open_store(
            url + "/f", {"DATA_MOVER_CONNECTION_STRING": azurite.connection_string}
        ),
        "key in a file": lambda: open_store(url + "/f", {"DATA_MOVER_ACCOUNT_KEY_FILE": str(tmp_path / "key")}),
    }[kind]()
    store.put("a", [b"data"])
    assert read(store, "a") == b"data"
    assert names(store, "") == ["a"]
    store.close()


class InstanceMetadata(BaseHTTPRequestHandler):
    """As much of Azure's instance metadata service as azure-identity asks for."""

    asked: list[str]

    def do_GET(self) -> None:
        if self.headers.get("Metadata") != "true":
            self.reply(400, {"error": "invalid_request", "error_description": "Required metadata header not specified"})
            return
        type(self).asked.append(self.path)
        token = {
            "access_token": unsigned_token(),
            "expires_in": "3600",
            "expires_on": "4102444800",
            "token_type": "Bearer",
        }
        self.reply(200, token | {"resource": "https://storage.azure.com/"})

    def reply(self, status: int, content: dict[str, str]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def metadata_service(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[InstanceMetadata]]:
    class Handler(InstanceMetadata):
        asked: list[str] = []  # noqa: RUF012 - one service, one list

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", f"http://127.0.0.1:{server.server_port}")
        yield Handler
        server.shutdown()
        thread.join()


@pytest.mark.azurite
def test_a_managed_identity_works(
    azurite_tls: Azurite, metadata_service: type[InstanceMetadata], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(azurite_tls.ca_file))
    store = open_store(make_container(azurite_tls), {})
    assert isinstance(store, AzureBlobStore)
    store.put("a", [b"data"])
    assert read(store, "a") == b"data"
    assert names(store, "") == ["a"]
    assert metadata_service.asked
    assert all("resource=https" in path for path in metadata_service.asked)
    store.close()
