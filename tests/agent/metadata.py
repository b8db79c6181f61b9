# SPDX-License-Identifier: Apache-2.0
"""An instance metadata service: Scheduled Events and the VM's name, and tokens of a managed identity.

    python -m tests.agent.metadata ADDRESS PORT FOLDER

FOLDER/events has the events (JSON, a list); what is acknowledged is added to FOLDER/acknowledged, a line each. Where
FOLDER/nameless is, it does not tell the VM's name; where FOLDER/stranger is, the VM has no identity. As Azure's does, it refuses
whoever sends no Metadata header, or comes through a proxy. What it is not: an identity provider, its token is a text.
"""

from __future__ import annotations

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

NAME = "worker-7"


def server(address: str, port: int, folder: Path) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            split = urlsplit(self.path)
            if not self._may():
                return
            if split.path == "/metadata/scheduledevents":
                events = json.loads((folder / "events").read_text())
                self._say(200, {"DocumentIncarnation": 1, "Events": events})
            elif split.path == "/metadata/instance/compute":
                self._say(*((429, {}) if (folder / "nameless").exists() else (200, {"name": NAME})))
            elif split.path == "/metadata/identity/oauth2/token" and (folder / "stranger").exists():
                self._say(400, {"error": "invalid_request", "error_description": "Identity not found"})
            elif split.path == "/metadata/identity/oauth2/token":
                resource = parse_qs(split.query)["resource"][0]
                self._say(
                    200, {"access_token": "token", "expires_on": str(int(time.time()) + 3600), "resource": resource}
                )
            else:
                self._say(404, {})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self._may():
                with open(folder / "acknowledged", "ab") as file:
                    file.write(body + b"\n")
                self._say(200, None)

        def _may(self) -> bool:
            good = self.headers.get("Metadata") == "true" and "X-Forwarded-For" not in self.headers
            if not good:
                self._say(400, {"error": "invalid_request"})
            return good

        def _say(self, status: int, document: object) -> None:
            body = b"" if document is None else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return ThreadingHTTPServer((address, port), Handler)


def main() -> None:
    running = server(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
    print(running.server_port, flush=True)
    running.serve_forever()


if __name__ == "__main__":
    main()
