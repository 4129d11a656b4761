"""Workers of a Store as real processes on real sockets, and a small strict HTTP client.

:class:`LocalStore` stands in for the supervisor: it makes the control block, keeps the volumes open as their owner and
starts workers, **each on a port of its own**, so that a test can choose which worker it talks to.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from haystack.config import StoreSettings
from haystack.fid import Fid
from haystack.store.control import ControlBlock
from haystack.store.control_cells import Counter, Header, Reason, VolumeState
from haystack.store.settings import WorkerSettings
from haystack.store.workers import WorkerFds, worker_command
from haystack.volume import Volume

SECONDS = 30.0
"""No single answer takes longer."""

MIB = 2**20


@dataclass(frozen=True)
class Answer:
    """One HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json", self
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The message of an error answer."""
        message = self.json()["error"]
        assert isinstance(message, str) and message
        return message


class Client:
    """One keep-alive connection."""

    def __init__(self, port: int, *, receive_buffer_bytes: int | None = None) -> None:
        self.sock = socket.socket()
        if receive_buffer_bytes is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.sock.settimeout(SECONDS)
        try:
            self.sock.connect(("127.0.0.1", port))
        except OSError:
            self.sock.close()
            raise
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        """Close with a RST, as a client that was killed."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Sequence[tuple[str, str]] = ()
    ) -> Answer:
        self.send(head(method, path, body, headers) + (body or b""))
        return self.answer(method)

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, headers=[(name.replace("_", "-"), value) for name, value in headers.items()])

    def put(self, path: str, body: bytes, *headers: tuple[str, str]) -> Answer:
        return self.request("PUT", path, body, headers)

    def delete(self, path: str) -> Answer:
        return self.request("DELETE", path)

    def answer(self, method: str = "GET") -> Answer:
        """Read one response, exactly."""
        while (end := self.buffer.find(b"\r\n\r\n")) < 0:
            self._more()
        raw, self.buffer = self.buffer[:end], self.buffer[end + 4 :]
        line, *lines = raw.decode("latin-1").split("\r\n")
        match = re.fullmatch(r"HTTP/1\.1 ([0-9]{3}) [A-Za-z -]+", line)
        assert match, line
        headers: dict[str, str] = {}
        for one in lines:
            name, colon, value = one.partition(": ")
            assert colon and re.fullmatch(r"[!#$%&'*+.^_`|~A-Za-z0-9-]+", name), one
            assert name.lower() not in headers, f"{name} twice"
            headers[name.lower()] = value
        status = int(match[1])
        if status == 100:
            return Answer(status, headers, b"")
        length = 0 if method == "HEAD" or status in (204, 304) else int(headers["content-length"])
        return Answer(status, headers, self.read(length))

    def read(self, count: int) -> bytes:
        while len(self.buffer) < count:
            self._more()
        body, self.buffer = self.buffer[:count], self.buffer[count:]
        return body

    def at_end(self) -> bool:
        """Whether the server has closed, with nothing more to read."""
        try:
            return not self.buffer and not self.sock.recv(1)
        except ConnectionResetError:
            return True

    def _more(self) -> None:
        data = self.sock.recv(1 << 20)
        if not data:
            raise ConnectionError(f"the server closed after {self.buffer[:200]!r}")
        self.buffer += data


def head(method: str, path: str, body: bytes | None = None, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """A request head; Content-Length is added for a body."""
    lines = [f"{method} {path} HTTP/1.1", "Host: store"]
    if body is not None and not any(name.lower() in ("content-length", "transfer-encoding") for name, _ in headers):
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in headers]
    return "".join(line + "\r\n" for line in lines).encode("latin-1") + b"\r\n"


def chunked(body: bytes, size: int) -> bytes:
    """A body in chunks of this size."""
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def form(body: bytes, name: str = "photo.jpg", kind: str | None = "image/jpeg", boundary: str = "frontier") -> bytes:
    """A form with one file between two fields."""
    lines = [
        f"--{boundary}",
        'Content-Disposition: form-data; name="before"',
        "",
        "1",
        f"--{boundary}",
        f'Content-Disposition: form-data; name="file"; filename="{name}"',
        *([f"Content-Type: {kind}"] if kind else []),
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + body + f"\r\n--{boundary}--\r\n".encode()


FORM_TYPE = ("Content-Type", "multipart/form-data; boundary=frontier")


def new_fid(volume: int = 1, key: int | None = None, alternate: int = 0) -> Fid:
    return Fid(volume, key if key is not None else secrets.randbits(40), secrets.randbits(64), alternate)


class LocalStore:
    """Control block, volumes and workers.

    Parameters
    ----------
    folder: data folder.
    workers: how many; each gets its own port.
    volumes: ids.
    settings: of StoreSettings.
    """

    def __init__(
        self,
        folder: Path,
        *,
        workers: int = 1,
        volumes: Sequence[int] = (1,),
        max_volume_bytes: int = 64 * MIB,
        environment: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        self.folder = folder
        (folder / "tmp").mkdir(parents=True, exist_ok=True)
        self.control = ControlBlock.create(workers)
        self.max_volume_bytes = max_volume_bytes
        self.volumes: dict[int, Volume] = {}
        self.slots: dict[int, int] = {}
        for number in volumes:
            self.add_volume(number)
        self.control.cells[Header.READY] = 1
        self._settings = StoreSettings(data=(folder,), workers=workers, **settings)
        self._environment = {**os.environ, **(environment or {})}
        self.processes: list[subprocess.Popen[bytes]] = []
        self.ports: list[int] = []
        for number in range(workers):
            self.ports.append(_free_port())
            self.processes.append(self._spawn(number))

    def add_volume(self, number: int) -> None:
        path, max_bytes = self.folder / f"{number}.vol", self.max_volume_bytes
        there = path.exists()
        volume = Volume.open(path, max_bytes=max_bytes) if there else Volume.create(path, number, max_bytes=max_bytes)
        self.volumes[number] = volume
        self.slots[number] = self.control.add_volume(number, 0, VolumeState.WRITABLE, max_bytes=max_bytes)

    def _spawn(self, number: int) -> subprocess.Popen[bytes]:
        settings = WorkerSettings.of_store(
            self._settings, port=self.ports[number], worker=number, store_id="00000000-0000-4000-8000-000000000000"
        )
        ready_read, ready_write = os.pipe()
        settings_fd = settings.share()
        fds = WorkerFds(self.control.fd, settings_fd, ready_write)
        with (self.folder / f"worker{number}.log").open("ab") as log:
            process = subprocess.Popen(
                worker_command(settings, fds),
                stdin=subprocess.DEVNULL,
                stderr=log,
                pass_fds=(fds.control, fds.settings, fds.ready),
                env=self._environment,
            )
        os.close(ready_write)
        os.close(settings_fd)
        ready = os.read(ready_read, 1)
        os.close(ready_read)
        assert ready == b"1", (self.folder / f"worker{number}.log").read_text()
        return process

    def client(self, worker: int = 0, **options: Any) -> Client:
        return Client(self.ports[worker], **options)

    def once(self, method: str, path: str, body: bytes | None = None, *, worker: int = 0) -> Answer:
        """One request on a connection of its own."""
        with self.client(worker) as client:
            return client.request(method, path, body)

    def kill(self, worker: int) -> None:
        """kill -9, as the supervisor would see it: caches are voided."""
        self.processes[worker].kill()
        self.processes[worker].wait(SECONDS)
        self.control.void_caches()

    def restart(self, worker: int) -> None:
        """Start a dead worker again."""
        self.processes[worker] = self._spawn(worker)

    def terminate(self, worker: int = 0) -> None:
        self.processes[worker].send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Stop all workers, gracefully where they run, and close the volumes."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for volume in self.volumes.values():
            volume.close()
        self.control.close()

    def reopen(self, **options: Any) -> LocalStore:
        """Stop this one and start another on the same folder."""
        numbers = tuple(self.volumes)
        self.stop()
        return LocalStore(self.folder, volumes=numbers, max_volume_bytes=self.max_volume_bytes, **options)

    def path(self, volume: int = 1) -> Path:
        return self.folder / f"{volume}.vol"

    def tail(self, volume: int = 1) -> int:
        return self.volumes[volume].tail()

    def log(self, worker: int = 0) -> str:
        return (self.folder / f"worker{worker}.log").read_text()

    def set_state(self, state: VolumeState, reason: Reason = Reason.NONE, volume: int = 1) -> None:
        self.control.set_state(self.slots[volume], state, reason)

    def state(self, volume: int = 1) -> VolumeState:
        return self.control.state(self.slots[volume])

    def counter(self, counter: Counter) -> int:
        """Summed over the workers, after what they still hold was published by asking each for its metrics."""
        for number, process in enumerate(self.processes):
            if process.poll() is None:
                with self.client(number) as client:
                    assert client.get("/metrics").status == 200
        return self.control.counter(counter)

    def metrics(self, worker: int = 0) -> dict[str, float]:
        """The page of one worker, after the others have published."""
        self.counter(Counter.GET)
        with self.client(worker) as client:
            return parse_metrics(client.get("/metrics").body.decode())


def parse_metrics(page: str) -> dict[str, float]:
    """Samples by name with labels."""
    rows = (line.rpartition(" ") for line in page.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in rows}


@contextlib.contextmanager
def running(folder: Path, **options: Any) -> Iterator[LocalStore]:
    """A Store for the length of a block; its log must hold no trace of a bug."""
    store = LocalStore(folder, **options)
    try:
        yield store
    finally:
        store.stop()
    for number in range(len(store.processes)):
        log = store.log(number)
        assert "Traceback" not in log and "never retrieved" not in log, log


def drop_cache(path: Path) -> None:
    """Put a file out of the page cache; where that cannot be done (tmpfs), nothing happens."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def private_bytes(pid: int) -> int:
    """Anonymous memory of a process: what is its own and not page cache."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    match = re.search(r"^Anonymous:\s+([0-9]+) kB$", rollup, re.MULTILINE)
    assert match
    return int(match[1]) * 1024


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
