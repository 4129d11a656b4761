"""The light client reads whatever a server sends, and tells of all that is no answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import cast

import pytest
from cluster_light import FIRST_BUFFER_BYTES, LightClient, LightRead, Ticker, run_light

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


class Seen(LightRead):
    """Notes what came."""

    __slots__ = ("ended", "what")

    def __init__(self, address: str, path: bytes = b"/1") -> None:
        super().__init__(address, path)
        self.what: tuple[int, bytes] | str = ""
        self.ended = asyncio.Event()

    def answered(self, status: int, body: memoryview) -> None:
        self.what = (status, bytes(body))
        self.ended.set()

    def unanswered(self, problem: str) -> None:
        self.what = problem
        self.ended.set()


class Server(asyncio.Protocol):
    """Answers each request with pieces; an empty piece closes the connection."""

    requests: list[bytes]
    connections: int

    def __init__(self, pieces: Sequence[bytes], all_of: Server | None) -> None:
        self.pieces = pieces
        self.all_of = all_of or self
        if all_of is None:
            self.requests, self.connections = [], 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.all_of.connections += 1

    def data_received(self, data: bytes) -> None:
        self.all_of.requests.append(data)
        self._send(list(self.pieces))

    def _send(self, pieces: list[bytes]) -> None:
        if not pieces or self.transport.is_closing():
            return
        piece = pieces.pop(0)
        if piece:
            self.transport.write(piece)
        else:
            self.transport.close()
        asyncio.get_running_loop().call_later(0.01, self._send, pieces)


@asynccontextmanager
async def serving(*pieces: bytes) -> AsyncIterator[tuple[Server, str]]:
    whole = Server(pieces, None)
    server = await asyncio.get_running_loop().create_server(lambda: Server(pieces, whole), "127.0.0.1", 0)
    try:
        yield whole, f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def ask(
    address: str, timeout_seconds: float = 5.0, count: int = 1, most: int = 8
) -> list[tuple[int, bytes] | str]:
    client = LightClient(timeout_seconds=timeout_seconds, most_connections=most)
    reads = [Seen(address) for _ in range(count)]
    for read in reads:
        client.begin(read)
    assert client.in_flight == count
    async with asyncio.timeout(10):
        await asyncio.gather(*(read.ended.wait() for read in reads))
    await client.close()
    assert client.in_flight == 0
    return [read.what for read in reads]


LARGE = bytes(range(256)) * (FIRST_BUFFER_BYTES // 100)


@pytest.mark.parametrize(
    "pieces",
    [
        [HEAD % 5 + b"photo"],
        [b"HTTP/1.1 200 O", b"K\r\ncontent-length:5\r\n\r", b"\nph", b"oto"],
        [HEAD % 5 + b"photo", b""],
        [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nphoto", b""],
    ],
)
def test_an_answer_is_read_however_it_comes(pieces: list[bytes]) -> None:
    async def main() -> None:
        async with serving(*pieces) as (server, address):
            assert await ask(address) == [(200, b"photo")]
        assert server.requests == [b"GET /1 HTTP/1.1\r\nHost: " + address.encode() + b"\r\n\r\n"]

    run_light(main())


def test_an_answer_larger_than_the_buffer() -> None:
    async def main() -> None:
        async with serving(HEAD % len(LARGE) + LARGE) as (_, address):
            assert await ask(address) == [(200, LARGE)]

    run_light(main())


def test_an_answer_that_is_no_success() -> None:
    async def main() -> None:
        async with serving(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") as (_, address):
            assert await ask(address) == [(404, b"")]

    run_light(main())


def test_connections_are_kept_and_no_more_than_allowed() -> None:
    async def main() -> None:
        async with serving(HEAD % 2 + b"ok") as (server, address):
            assert await ask(address, count=50, most=4) == [(200, b"ok")] * 50
        assert server.connections == 4 and len(server.requests) == 50

    run_light(main())


@pytest.mark.parametrize(
    ("pieces", "problem"),
    [
        ([b""], "cut off after 0 bytes"),
        ([HEAD % 5 + b"pho", b""], "cut off after"),
        ([b"HTTP/1.1 200 OK\r\n\r\n"], "without Content-Length"),
        ([HEAD % 5 + b"photo and more"], "more bytes than an answer has"),
        ([b"x" * FIRST_BUFFER_BYTES], "a head without an end"),
    ],
)
def test_what_is_no_answer_is_told(pieces: list[bytes], problem: str) -> None:
    async def main() -> None:
        async with serving(*pieces) as (_, address):
            (said,) = await ask(address)
        assert isinstance(said, str) and problem in said and f"GET {address}/1" in said

    run_light(main())


def test_a_server_that_says_nothing_is_given_up_and_so_is_who_waits_for_it() -> None:
    async def main() -> None:
        async with serving() as (server, address):
            said = await ask(address, timeout_seconds=0.1, count=3, most=1)
        assert all(isinstance(one, str) and "not in time" in one for one in said)
        assert len(server.requests) < 3

    run_light(main())


def test_nobody_listens() -> None:
    async def main() -> None:
        async with serving() as (_, address):
            pass
        said = await ask(address, count=3)
        assert all(isinstance(one, str) and "Refused" in one for one in said)

    run_light(main())


def test_a_ticker_catches_up() -> None:
    async def main() -> int:
        calls: list[int] = []
        done = asyncio.Event()

        def act() -> None:
            calls.append(1)
            if len(calls) == 50:
                done.set()

        count: Callable[[], None] = act
        ticker = Ticker(1000.0, count)
        await done.wait()
        ticker.stop()
        assert ticker.most_late_seconds >= 0
        return len(calls)

    assert run_light(main()) >= 50
