"""A Store, an intake and a stand-in of the front end, for the tests of uploads."""

from __future__ import annotations

import json
import os
import random
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

from frontend.records import RECORD, Record, load
from frontend.tickets import Ticket, TicketOffice
from haystack.fid import Fid
from haystack.security import AUTH_HEADER, Verifier
from haystack.signed_urls import UrlSigner

HERE = Path(__file__).parent
SECRET = b"0123456789abcdef0123456789abcdef"
DEADLINE_SECONDS = 30.0
OFFICE = TicketOffice(SECRET)
SIGNER = UrlSigner(SECRET)
VOLUME = 3


def ticket(size_bytes: int, **more: Any) -> Ticket:
    fid = Fid(VOLUME, secrets.randbelow(2**62) + 1, secrets.randbelow(2**64))
    given: dict[str, Any] = {
        "id": secrets.token_bytes(16),
        "fid": str(fid),
        "owner_id": 7,
        "owner_name": "ada",
        "owner_shown": "Ada",
        "size_bytes": size_bytes,
        "expires": int(time.time()) + 3600,
        "name": "bridge.jpg",
        "title": "A bridge",
    }
    return Ticket(**given | more)


def bearer(one: Ticket) -> dict[str, str]:
    return {"Authorization": "Bearer " + OFFICE.issue(one)}


def tus(one: Ticket, **more: str) -> dict[str, str]:
    return bearer(one) | {"Tus-Resumable": "1.0.0"} | {name.replace("_", "-"): text for name, text in more.items()}


class Process:
    """A process that says one line when it is ready."""

    def __init__(self, script: Path, *arguments: object) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed at the end
        self.process = subprocess.Popen(
            [sys.executable, str(script), *map(json.dumps, arguments)],
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=HERE.parents[1],
            env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        found = re.search(r"listening on (http://127\.0\.0\.1:(\d+))", line)
        if found is None:
            self.wait()
            log = self.log
            self.end()
            raise AssertionError(f"no ready line but {line!r}; it said:\n{log}")
        self.line, self.url, self.port = line, found[1], int(found[2])

    @property
    def log(self) -> str:
        return os.pread(self._log.fileno(), 2**20, 0).decode()

    def wait(self) -> int:
        return self.process.wait(DEADLINE_SECONDS)

    def stop(self) -> int:
        self.process.terminate()
        return self.wait()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()


class Intake(Process):
    """An intake; ``more`` are its settings, or what run_intake.py takes."""

    def __init__(self, data: Path, store: LocalStore, front: Frontend, **more: Any) -> None:
        settings = {
            "data": str(data),
            "port": 0,
            "store": f"127.0.0.1:{store.port}",
            "frontends": [front.url],
            "secret": SECRET.decode(),
            "here": True,
        }
        super().__init__(HERE / "run_intake.py", settings | more)

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.wait()


class LocalStore(Process):
    """A Store without a Directory, with one volume."""

    def __init__(self, folder: Path) -> None:
        settings = {"port": 0, "workers": 1, "stop_timeout_seconds": 1.0, "reserve_bytes": 0, "data": [str(folder)]}
        script = HERE.parent / "store" / "run_supervisor.py"
        super().__init__(script, settings | {"secret": SECRET.decode()}, {})
        admin = re.search(r"admin (http://\S+),", self.line)
        assert admin is not None
        document = {
            "volume": VOLUME,
            "uuid": str(uuid4()),
            "replication": "000",
            "createdMs": 1_700_000_000_000,
            "epoch": 1,
            "maxBytes": None,
            "folder": None,
        }
        _signed_post(admin[1] + "/admin/volumes", document)

    def status(self, fid: Fid, *, signed: bool = True) -> int:
        return self.read(fid, signed=signed)[0]

    def read(self, fid: Fid, *, signed: bool = True) -> tuple[int, bytes, str]:
        """Status, body and type of a needle."""
        query = "?" + SIGNER.query(fid, int(time.time()) + 60) if signed else ""
        try:
            with urllib.request.urlopen(f"{self.url}/{fid}{query}", timeout=10) as answer:
                return answer.status, answer.read(), answer.headers["Content-Type"]
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(), ""

    def record(self, fid: str) -> Record:
        status, body, _ = self.read(alternate(fid, RECORD))
        assert status == 200
        return load(body)


def _signed_post(url: str, document: object) -> None:
    from haystack.security import sign

    body = json.dumps(document).encode()
    path = "/" + url.split("/", 3)[3]
    headers = {AUTH_HEADER: sign(SECRET, "POST", path, body, now=time.time()), "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10) as answer:
        assert answer.status == 201


def alternate(fid: str, key: int) -> Fid:
    whole = Fid.parse(fid)
    return Fid(whole.volume, whole.key, whole.cookie, key)


class Frontend:
    """What takes records: each in ``records``, by the photo's id; ``told`` has them in the order they came."""

    def __init__(self) -> None:
        self.records: dict[int, Record] = {}
        self.told: list[Record] = []
        self.status = 0
        """Answered instead, when it is not 0."""
        self._changed = threading.Condition()
        verifier = Verifier(SECRET)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                verifier.verify(self.headers.get(AUTH_HEADER), "POST", self.path, body)
                assert self.path == "/internal/photos"
                status = outer.take(load(body))
                self.send_response(status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def take(self, record: Record) -> int:
        with self._changed:
            self.told.append(record)
            self._changed.notify_all()
            if self.status:
                return self.status
            new = record.photo_id not in self.records
            self.records.setdefault(record.photo_id, record)
            return 201 if new else 200

    def wait_for(self, fid: str) -> Record:
        key = Fid.parse(fid).key
        with self._changed:
            assert self._changed.wait_for(lambda: key in self.records, DEADLINE_SECONDS), "not published in time"
            return self.records[key]

    def wait_told(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.told) >= count, DEADLINE_SECONDS)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def store_and_frontend(folder: Path) -> Iterator[tuple[LocalStore, Frontend]]:
    store, front = LocalStore(folder / f"store{random.randrange(10**9)}"), Frontend()
    try:
        yield store, front
    finally:
        store.end()
        front.close()
