"""Connections to other Stores on which batches travel, for threads: blocking calls with deadlines.

A connection has one request at a time; requests that go out together each have a connection of their own, so that the
other side makes them durable together. Connections that are free are kept.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import select
import socket
import threading
import time
from collections.abc import Sequence

from haystack.addresses import split
from haystack.errors import HaystackError
from haystack.security import AUTH_HEADER, sign
from haystack.store.replication.wire import (
    FRAME_HEADER,
    NONCE,
    SESSION_PATH,
    Answer,
    Session,
    parse_answer,
)
from haystack.volume.layout import Buffer

IOV_MAX = 1024
READ_BYTES = 64 * 1024
MAX_IDLE = 16
"""Connections to one Store that are kept while nobody uses them."""


class PeerFailed(HaystackError):
    """Another Store does not take a batch: it cannot be reached, is too slow, or answers nonsense."""

    http_status = 503


class PeerConnection:
    """One connection; ``send`` begins a request, ``receive`` waits for its answer.

    Parameters
    ----------
    url: ``host:port`` of the data port.
    secret: of the cluster; None sends unsigned.
    deadline: monotonic seconds until which it must be set up.

    Raises PeerFailed.
    """

    def __init__(self, url: str, secret: bytes | None, deadline: float) -> None:
        self.url = url
        self.fresh = True
        """Nothing was answered on it yet."""
        self._unsent: list[memoryview] = []
        self._received = b""
        self._session: Session | None = None
        try:
            self._socket = socket.create_connection(split(url), timeout=_left(deadline))
        except OSError as error:
            raise PeerFailed(f"Store {url} cannot be reached: {error.strerror or error}") from error
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.setblocking(False)
            if secret is not None:
                self._session = self._agree(secret, deadline)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """The socket's descriptor, to be polled."""
        return self._socket.fileno()

    @property
    def sending(self) -> bool:
        """Whether a part of the request is still to be sent."""
        return bool(self._unsent)

    def begin(self, target: str, body: Sequence[Buffer]) -> None:
        """Begin ``POST target``; as much is sent as goes without waiting. Raises PeerFailed."""
        headers = "" if self._session is None else f"{FRAME_HEADER}: {self._session.sign('POST', target, body)}\r\n"
        self._begin(target, headers, body)

    def _begin(self, target: str, headers: str, body: Sequence[Buffer]) -> None:
        size_bytes = sum(len(piece) for piece in body)
        head = f"POST {target} HTTP/1.1\r\nHost: {self.url}\r\nContent-Length: {size_bytes}\r\n{headers}\r\n".encode()
        self._unsent = [memoryview(head), *(memoryview(piece).cast("B") for piece in body if len(piece))]
        self._received = b""
        self.go_on()

    def go_on(self) -> None:
        """Send what can be sent now. Raises PeerFailed."""
        try:
            while self._unsent:
                self._drop(self._socket.sendmsg(self._unsent[:IOV_MAX]))
        except BlockingIOError:
            return
        except OSError as error:
            # It may have refused the request and said why before it closed.
            if not self._peek():
                raise PeerFailed(f"Store {self.url} closed the connection: {error.strerror or error}") from error
            self._unsent = []

    def take(self) -> Answer | None:
        """The answer, as far as it is there; None when it is not complete. Raises PeerFailed."""
        try:
            while True:
                received = parse_answer(self._received)
                if received is not None:
                    self.fresh = False
                    if not received.keep:
                        self.close()
                    return received.answer
                data = self._socket.recv(READ_BYTES)
                if not data:
                    raise PeerFailed(f"Store {self.url} closed the connection")
                self._received += data
        except BlockingIOError:
            return None
        except (OSError, ValueError) as error:
            raise PeerFailed(f"Store {self.url}: {error}") from error

    def wait(self, deadline: float) -> Answer:
        """Send the rest and wait for the answer. Raises PeerFailed."""
        while True:
            answer = self.take()
            if answer is not None:
                return answer
            self.go_on()
            events = select.POLLIN | (select.POLLOUT if self._unsent else 0)
            poll = select.poll()
            poll.register(self, events)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise PeerFailed(f"Store {self.url} did not answer in time")

    @property
    def usable(self) -> bool:
        """Whether another request may begin on it: it is open, and nothing unexpected has come."""
        if self._socket.fileno() < 0 or self._unsent:
            return False
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Close it; may be called twice."""
        self._socket.close()

    def _agree(self, secret: bytes, deadline: float) -> Session:
        """Begin a session. Raises PeerFailed."""
        nonce = secrets.token_hex(16)
        body = json.dumps({"nonce": nonce}).encode()
        header = sign(secret, "POST", SESSION_PATH, body, now=time.time())
        self._begin(SESSION_PATH, f"{AUTH_HEADER}: {header}\r\n", [body])
        status, document = self.wait(deadline)
        session_id, theirs = str(document.get("session")), str(document.get("nonce"))
        if status != 200 or not NONCE.fullmatch(session_id) or not NONCE.fullmatch(theirs):
            raise PeerFailed(f"Store {self.url} refuses a session: {document.get('error', f'status {status}')}")
        return Session.made(secret, session_id, nonce, theirs)

    def _drop(self, count: int) -> None:
        unsent = self._unsent
        while unsent and count >= len(unsent[0]):
            count -= len(unsent.pop(0))
        if count:
            unsent[0] = unsent[0][count:]

    def _peek(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        return False


class Peers:
    """Connections to all other Stores; for any number of threads.

    Parameters
    ----------
    secret: of the cluster, None for unsigned calls.
    """

    def __init__(self, secret: bytes | None) -> None:
        self._secret = secret
        self._lock = threading.Lock()
        self._idle: dict[str, list[PeerConnection]] = {}

    def borrow(self, url: str, deadline: float, *, fresh: bool = False) -> PeerConnection:
        """A connection of one's own, to be given back or closed.

        Parameters
        ----------
        fresh: make a new one.

        Raises PeerFailed.
        """
        while not fresh:
            with self._lock:
                idle = self._idle.get(url)
                connection = idle.pop() if idle else None
            if connection is None:
                break
            if connection.usable:
                return connection
            connection.close()
        return PeerConnection(url, self._secret, deadline)

    def give_back(self, connection: PeerConnection) -> None:
        """Keep a connection for later, when it can be used again."""
        if connection.usable:
            with self._lock:
                idle = self._idle.setdefault(connection.url, [])
                if len(idle) < MAX_IDLE:
                    idle.append(connection)
                    return
        connection.close()

    def call(self, url: str, target: str, body: Sequence[Buffer], deadline: float) -> Answer:
        """Make one call and wait for its answer; repeated on a new connection when an old one turns out to be dead.

        Raises PeerFailed.
        """
        connection = self.borrow(url, deadline)
        again = not connection.fresh
        try:
            connection.begin(target, body)
            answer = connection.wait(deadline)
            again = again and answer.status == 401
        except PeerFailed:
            connection.close()
            if not again or time.monotonic() >= deadline:
                raise
        else:
            if not again:
                self.give_back(connection)
                return answer
            connection.close()
        connection = self.borrow(url, deadline, fresh=True)
        try:
            connection.begin(target, body)
            answer = connection.wait(deadline)
        except BaseException:
            connection.close()
            raise
        self.give_back(connection)
        return answer

    def close(self) -> None:
        """Close those that nobody uses."""
        with self._lock:
            for idle in self._idle.values():
                for connection in idle:
                    connection.close()
            self._idle.clear()


def _left(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())
