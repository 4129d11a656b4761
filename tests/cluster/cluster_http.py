"""A small HTTP client for load: kept connections, one deadline a request, no retries of its own."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

MAX_IDLE_CONNECTIONS = 64
"""Connections kept for one address."""


class NoAnswer(Exception):
    """There was no whole answer: refused, cut off, or not in time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @property
    def usable(self) -> bool:
        return not self._reader.at_eof() and not self._writer.is_closing()

    def close(self) -> None:
        # Aborted and not closed: a frozen peer would keep the bytes, and us, waiting.
        self._writer.transport.abort()

    async def ask(self, head: bytes, body: bytes, *, without_body: bool) -> Answer:
        self._writer.write(head + body)
        await self._writer.drain()
        raw = await self._reader.readuntil(b"\r\n\r\n")
        lines = raw.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        size_bytes = 0 if without_body else int(fields.get("content-length", "0"))
        content = await self._reader.readexactly(size_bytes)
        if fields.get("connection", "").lower() == "close":
            self.close()
        return Answer(int(lines[0].split()[1]), content)


class HttpClient:
    """Requests to ``host:port`` addresses. Use it as an async context manager."""

    def __init__(self) -> None:
        self._idle: dict[str, list[_Connection]] = {}

    async def __aenter__(self) -> HttpClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()
        await asyncio.sleep(0)

    async def request(
        self, method: str, address: str, path: str, body: bytes = b"", *, timeout_seconds: float
    ) -> Answer:
        """Make one request. Raises NoAnswer."""
        head = f"{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(timeout_seconds):
                connection = self._kept(address) or await self._connect(address)
                answer = await connection.ask(head, body, without_body=method == "HEAD")
        except (OSError, EOFError, TimeoutError, ValueError, asyncio.LimitOverrunError) as error:
            if connection is not None:
                connection.close()
            raise NoAnswer(f"{method} {address}{path}: {type(error).__name__} {error}") from error
        except asyncio.CancelledError:
            if connection is not None:
                connection.close()
            raise
        idle = self._idle.setdefault(address, [])
        if connection.usable and len(idle) < MAX_IDLE_CONNECTIONS:
            idle.append(connection)
        else:
            connection.close()
        return answer

    def _kept(self, address: str) -> _Connection | None:
        idle = self._idle.get(address, [])
        while idle:
            connection = idle.pop()
            if connection.usable:
                return connection
            connection.close()
        return None

    @staticmethod
    async def _connect(address: str) -> _Connection:
        host, _, port = address.rpartition(":")
        return _Connection(*await asyncio.open_connection(host, int(port), limit=2**20))
