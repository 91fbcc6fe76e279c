"""A local server with the interface of the Hugging Face hub."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Repositories (name -> file -> bytes), and the requested paths."""

    url: str
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    requested: list[str] = field(default_factory=list)
    commit: str = COMMIT
    """Of `main`."""

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body, as the hub's `/owner/name/resolve/main/file` does."""
        self.requested.append(path)
        owner, name, _, revision, file = (*path.strip("/").split("/", 4), "", "", "", "")[:5]
        commit = revision if len(revision) == len(COMMIT) else self.commit
        files = self.repositories.get(f"{owner}/{name}")
        if files is None:
            return 404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, b""
        if file not in files:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b""
        body = files[file]
        etag = f'"{hashlib.sha256(body).hexdigest()}"'
        return 200, {"ETag": etag, "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}, body


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Yield a hub that answers on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, headers, body = served.answer(self.path.partition("?")[0])
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Hub(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
