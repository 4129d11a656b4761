"""A blocking HTTP client that costs next to nothing: for warming up, and for latencies at a fixed pace."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from benchmarks.common import CannotMeasure

BUFFER_BYTES = 2**20
TIMEOUT_SECONDS = 60.0

_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})")
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)


class Client:
    """One keep-alive connection to a server on the loopback interface.

    Parameters
    ----------
    port: of the server.
    """

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(BUFFER_BYTES)
        self._host = b"Host: 127.0.0.1:%d\r\n\r\n" % port

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def get_size(self, path: str) -> int:
        """Ask for a path and throw the body away; returns its bytes. Raises CannotMeasure unless the answer is 200."""
        self.ask(path)
        return self.answered_size(path)

    def ask(self, path: str) -> None:
        """Send a request, whose answer :meth:`answered_size` has to take before the next one."""
        self._socket.sendall(b"GET %b HTTP/1.1\r\n%b" % (path.encode(), self._host))

    def answered_size(self, path: str) -> int:
        """Take the answer to what was asked. Raises CannotMeasure unless it is 200."""
        filled = end = 0
        while not end:
            filled += self._receive(filled)
            found = self._buffer.find(b"\r\n\r\n", 0, filled)
            end = found + 4 if found >= 0 else 0
        head = bytes(self._buffer[:end])
        status, length = _STATUS.match(head), _LENGTH.search(head)
        if status is None or status[1] != b"200" or length is None:
            raise CannotMeasure(f"{path} was answered with {head[:200]!r}")
        left = int(length[1]) - (filled - end)
        while left > 0:
            left -= self._receive(0)
        if left:
            raise CannotMeasure(f"{path} was answered with {-left} bytes too many")
        return int(length[1])

    def put(self, path: str, body: bytes) -> None:
        """Upload; waits for the answer. Raises CannotMeasure unless it is 201."""
        head = b"PUT %b HTTP/1.1\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n%b"
        self._socket.sendall(head % (path.encode(), len(body), self._host) + body)
        filled = self._receive(0)
        while self._buffer.find(b"\r\n\r\n", 0, filled) < 0 or not bytes(self._buffer[:filled]).endswith(b"}\n"):
            filled += self._receive(filled)
        status = _STATUS.match(self._buffer)
        if status is None or status[1] != b"201":
            raise CannotMeasure(f"an upload to {path} was answered with {bytes(self._buffer[: min(filled, 300)])!r}")

    def _receive(self, start: int) -> int:
        count = self._socket.recv_into(memoryview(self._buffer)[start:])
        if not count:
            raise CannotMeasure("the server closed the connection in the middle of an answer")
        return count


def latencies_at_pace(
    port: int,
    paths: Sequence[str],
    *,
    per_second: float,
    stop: Callable[[], bool],
) -> list[float]:
    """Ask for paths in turn at a fixed pace; returns seconds from when each was due until its answer was whole.

    Counting from when a request was due makes one stall count for all the requests that it holds up.
    """
    found: list[float] = []
    with Client(port) as client:
        start = time.perf_counter()
        while not stop():
            due = start + len(found) / per_second
            wait_seconds = due - time.perf_counter()
            if wait_seconds > 0:
                time.sleep(wait_seconds)
            client.get_size(paths[len(found) % len(paths)])
            found.append(time.perf_counter() - due)
    return found


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * percent // 100) - 1)]
