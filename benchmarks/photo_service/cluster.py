"""A stand-in of the cluster behind the front end: it says where volumes are, which is all that pages ask it for."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_STORE = {"url": "127.0.0.1:8080", "publicUrl": "127.0.0.1:8080", "services": {"intake": "127.0.0.1:8500"}}
_ANSWERS = {
    "/dir/lookup": {"locations": [{**_STORE, "primary": True}]},
    "/dir/caches": {"caches": [], "shared": {}},
    "/cluster/nodes": {"nodes": [_STORE]},
    "/internal/hits": {"hits": []},
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        answer = _ANSWERS.get(self.path.partition("?")[0])
        body = json.dumps(answer if answer is not None else {"error": "not here"}).encode()
        self.send_response(200 if answer is not None else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def log_message(self, *args: object) -> None:
        """Nothing is logged."""


@contextlib.contextmanager
def directory() -> Iterator[str]:
    """A Directory that knows all volumes; yields its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
