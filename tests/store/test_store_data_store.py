"""The data path under its real supervisor: ``haystack store`` as an operator starts it, with one and two workers."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from store_data_harness import MIB, SECONDS, Answer, Client, head, new_fid, parse_metrics
from test_store_data_failures import small_disk

from haystack.fid import Fid, Locator

PHOTO = bytes(range(256)) * 16
READY = re.compile(r"store: listening on http://127\.0\.0\.1:(\d+), admin http://127\.0\.0\.1:(\d+), data in .+\n")
P = "haystack_store_"
HAYSTACK = str(Path(sys.executable).with_name("haystack"))


class Command:
    """``haystack store`` as a process."""

    def __init__(self, folder: Path, *, workers: int, options: tuple[str, ...] = ()) -> None:
        self.log_path = folder.parent / f"{folder.name}.log"
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(HAYSTACK, "store", "--data", str(folder), "--port", "0"),
                    *("--admin-port", "0", "--workers", str(workers), "--stop-timeout-seconds", "10s", *options),
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        match = READY.fullmatch(line)
        assert match, (line, self.log_path.read_text())
        self.port, self.admin_port = int(match[1]), int(match[2])

    def client(self) -> Client:
        return Client(self.port)

    def once(self, method: str, path: str, body: bytes | None = None) -> Answer:
        with self.client() as client:
            return client.request(method, path, body)

    def admin(self, method: str, path: str, document: object = None) -> object:
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=SECONDS)
        body = None if document is None else json.dumps(document)
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()
        assert response.status < 300, answer
        return answer

    def make_volume(self, volume: int, max_bytes: int | None = None) -> None:
        document = {"volume": volume, "uuid": str(uuid4()), "replication": "000", "createdMs": 1, "epoch": 1}
        self.admin("POST", "/admin/volumes", document | {"maxBytes": max_bytes, "folder": None})

    def workers(self) -> list[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [pid for pid in map(int, path.read_text().split()) if b"worker" in _command_line(pid)]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


@contextlib.contextmanager
def command(folder: Path, *, workers: int, options: tuple[str, ...] = ()) -> Iterator[Command]:
    started = Command(folder, workers=workers, options=options)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            assert started.stop() == 0
    log = started.log_path.read_text()
    assert "Traceback" not in log, log


def until(condition: Callable[[], bool]) -> None:
    """Wait for what other processes do."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("workers", [1, 2])
def test_uploads_reads_and_deletes_over_many_connections(tmp_path: Path, workers: int) -> None:
    with command(tmp_path / "data", workers=workers) as store:
        for volume in (1, 2):
            store.make_volume(volume)
        fids = [new_fid(1 + number % 2) for number in range(24)]
        for number, fid in enumerate(fids):
            assert store.once("PUT", f"/{fid}", PHOTO + b"%d" % number).status == 201
        clients = [store.client() for _ in range(8)]
        for _ in range(3):
            for number, fid in enumerate(fids):
                for client in clients:
                    assert client.get(f"/{fid}").body == PHOTO + b"%d" % number
        for fid in fids[::2]:
            assert store.once("DELETE", f"/{fid}").status == 202
            for client in clients:
                assert client.get(f"/{fid}").status == 404
        for fid in fids[1::2]:
            assert store.once("PUT", f"/{fid}", b"new").status == 201
            for client in clients:
                assert client.get(f"/{fid}").body == b"new"
        expected = {
            P + 'responses_total{status="201"}': 36,
            P + 'responses_total{status="202"}': 12,
            P + 'responses_total{status="404"}': 12 * 8,
            P + 'volume_deletes_total{volume="1"}': 12,
            P + "workers": workers,
            P + "ready": 1,
        }

        def told() -> bool:
            page = parse_metrics(store.once("GET", "/metrics").body.decode())
            return {name: page[name] for name in expected} == expected

        until(told)  # the other worker publishes a few times a second
        for client in clients:
            assert client.get("/readyz").status == 200
            client.close()


def test_a_worker_killed_under_load(tmp_path: Path) -> None:
    acknowledged: list[tuple[Fid, bytes]] = []
    stop = threading.Event()

    def upload(store: Command, number: int) -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError), store.client() as client:
                while not stop.is_set():
                    fid, body = new_fid(), os.urandom(3000 + number)
                    if client.put(f"/{fid}", body).status == 201:
                        acknowledged.append((fid, body))

    with command(tmp_path / "data", workers=2) as store:
        store.make_volume(1)
        threads = [threading.Thread(target=upload, args=(store, number)) for number in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            count = len(acknowledged)
            until(lambda count=count: len(acknowledged) > count + 20)  # type: ignore[misc]  # a bound default
            pids = store.workers()
            os.kill(pids[0], signal.SIGKILL)
            until(lambda pids=pids: len(store.workers()) == 2 and store.workers() != pids)  # type: ignore[misc]
        stop.set()
        for thread in threads:
            thread.join()

        def listens() -> bool:  # the worker that was killed last may have been the only one that listened
            with contextlib.suppress(OSError):
                return store.once("GET", "/readyz").status == 200
            return False

        until(listens)
        with store.client() as client:
            for fid, body in acknowledged:
                assert client.get(f"/{fid}").body == body
        os.kill(store.process.pid, signal.SIGKILL)
        store.process.wait(SECONDS)
        assert store.process.stdout is not None
        store.process.stdout.close()
    with command(tmp_path / "data", workers=1) as store, store.client() as client:
        for fid, body in acknowledged:
            assert client.get(f"/{fid}").body == body
        assert client.put(f"/{new_fid()}", b"next").status == 201


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stop_waits_for_requests_in_flight(tmp_path: Path, workers: int) -> None:
    body, fid = os.urandom(9 * MIB), new_fid()
    with command(tmp_path / "data", workers=workers) as store:
        store.make_volume(1)
        uploads = [(store.client(), new_fid()) for _ in range(4)]
        for client, one in uploads:
            client.send(head("PUT", f"/{one}", body) + body[:-10])
        assert store.once("PUT", f"/{fid}", PHOTO).status == 201
        store.process.send_signal(signal.SIGTERM)
        for client, _ in uploads:
            client.send(body[-10:])
            assert client.answer().status == 201
            client.close()
        assert store.stop() == 0
    with command(tmp_path / "data", workers=workers) as store:
        for _, one in uploads:
            assert store.once("GET", f"/{one}").body == body
        assert store.once("GET", f"/{fid}").body == PHOTO


def test_a_file_cut_below_what_is_hot(tmp_path: Path) -> None:
    """The moment between the question whether pages are there and their use: the node survives it."""
    with command(tmp_path / "data", workers=1) as store:
        store.make_volume(1)
        kept, cut = new_fid(), new_fid()
        assert store.once("PUT", f"/{kept}", PHOTO).status == 201
        locator = Locator.parse(store.once("PUT", f"/{cut}", bytes(100_000)).json()["locator"])
        with store.client() as client:
            for fid in (kept, cut):
                for _ in range(3):
                    assert client.get(f"/{fid}").status == 200
            os.truncate(tmp_path / "data" / "1.vol", locator.offset + 50)
            with contextlib.suppress(ConnectionError):
                assert client.get(f"/{cut}").status == 500

        def refused() -> bool:
            with contextlib.suppress(OSError):
                return store.once("GET", f"/{cut}").status == 500
            return False

        until(refused)
        assert store.once("GET", f"/{kept}").body == PHOTO
        assert store.process.poll() is None


def test_a_full_disk_keeps_room_for_deletes(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", "48m") as disk,
        command(disk / "data", workers=2, options=("--reserve-bytes", "4MiB")) as store,
    ):
        store.make_volume(1)
        stored: dict[Fid, bytes] = {}
        while True:
            fid, body = new_fid(), os.urandom(500_000)
            answer = store.once("PUT", f"/{fid}", body)
            if answer.status != 201:
                break
            stored[fid] = body
        assert answer.status == 507 and "full" in answer.error
        until(lambda: store.once("PUT", f"/{new_fid()}", b"x").status == 507)
        gone = list(stored)[::2]
        for fid in gone:
            assert store.once("DELETE", f"/{fid}").status == 202
        for fid, body in stored.items():
            answer = store.once("GET", f"/{fid}")
            assert answer.status == 404 if fid in gone else answer.body == body
