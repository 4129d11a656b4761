"""The client without asyncio: the same calls, made on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar, runtime_checkable

import uvloop

from haystack.client.client import (
    DEFAULT_MAX_CONCURRENCY,
    DEFAULT_MAX_READ_BYTES,
    DEFAULT_TIMEOUT_SECONDS,
    HaystackClient,
    Uploadable,
)
from haystack.client.directory import Assignment, PhotoRecord
from haystack.client.locations import DEFAULT_LIFETIME_SECONDS, Location
from haystack.client.names import PhotoName
from haystack.client.photo import PhotoInfo, StoredPhoto
from haystack.client.reading import PhotoStream
from haystack.client.retry import RetryPolicy
from haystack.client.sources import PIECE_BYTES, Data, FileSource, IteratorSource
from haystack.client.uploading import DEFAULT_DEADLINE_SECONDS
from haystack.fid import Fid
from haystack.lifetime import end_tasks

STOP_SECONDS = 10.0

_Result = TypeVar("_Result")


@runtime_checkable
class Readable(Protocol):
    """A binary file, or what reads like one."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes; none at the end."""


SyncUploadable = Data | Path | FileSource | Readable | Iterable[bytes]


class SyncHaystackClient:
    """A client of a cluster for programs without asyncio. Many threads may share one.

    It is ready after it was made; :meth:`close` (or the end of ``with``) gives its connections and its thread up. After
    a fork the child needs a client of its own.

    Parameters are those of :class:`~haystack.client.HaystackClient`, and so are the errors of each call.
    """

    def __init__(
        self,
        directory_urls: str | Sequence[str],
        *,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        upload_deadline_seconds: float = DEFAULT_DEADLINE_SECONDS,
        retries: int | RetryPolicy = RetryPolicy(),  # noqa: B008 - immutable
        max_concurrency: int = DEFAULT_MAX_CONCURRENCY,
        location_lifetime_seconds: float = DEFAULT_LIFETIME_SECONDS,
        internal: bool = False,
        via_cache: bool = True,
    ) -> None:
        self._client = HaystackClient(
            directory_urls,
            timeout_seconds=timeout_seconds,
            upload_deadline_seconds=upload_deadline_seconds,
            retries=retries,
            max_concurrency=max_concurrency,
            location_lifetime_seconds=location_lifetime_seconds,
            internal=internal,
            via_cache=via_cache,
        )
        self._loop = uvloop.new_event_loop()
        self._closed = False
        self._lock = threading.Lock()
        # A daemon: a program that ends without close() must not wait for it.
        self._thread = threading.Thread(target=self._loop.run_forever, name="haystack-client", daemon=True)
        self._thread.start()
        self._run(self._client.__aenter__())

    def __enter__(self) -> SyncHaystackClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Break off what is under way, and give up connections and thread. Closing twice does no harm."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(STOP_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_SECONDS)
        self._loop.close()

    # -- the Directory

    def assign(self, count: int = 1, *, replication: str | None = None) -> Assignment:
        """As :meth:`HaystackClient.assign`."""
        return self._run(self._client.assign(count, replication=replication))

    def lookup(self, volume: int) -> tuple[Location, ...]:
        """As :meth:`HaystackClient.lookup`."""
        return self._run(self._client.lookup(volume))

    def photo(self, photo_id: int) -> PhotoRecord:
        """As :meth:`HaystackClient.photo`."""
        return self._run(self._client.photo(photo_id))

    def cluster_status(self) -> dict[str, Any]:
        """As :meth:`HaystackClient.cluster_status`."""
        return self._run(self._client.cluster_status())

    # -- photos

    def upload(
        self,
        data: SyncUploadable,
        *,
        name: str = "",
        mime: str = "",
        alternate: int = 0,
        fid: Fid | None = None,
        replication: str | None = None,
        ttl: str = "",
    ) -> StoredPhoto:
        """As :meth:`HaystackClient.upload`; ``data`` may also be an open binary file or an iterable of bytes."""
        return self._run(
            self._client.upload(
                _uploadable(data), name=name, mime=mime, alternate=alternate, fid=fid, replication=replication, ttl=ttl
            )
        )

    def read(
        self,
        name: PhotoName | str,
        *,
        etag: str = "",
        max_bytes: int = DEFAULT_MAX_READ_BYTES,
        via_cache: bool | None = None,
    ) -> bytes:
        """As :meth:`HaystackClient.read`."""
        return self._run(self._client.read(name, etag=etag, max_bytes=max_bytes, via_cache=via_cache))

    @contextmanager
    def stream(
        self, name: PhotoName | str, *, etag: str = "", via_cache: bool | None = None
    ) -> Iterator[SyncPhotoStream]:
        """As :meth:`HaystackClient.stream`; iterate over what it yields."""
        opened = self._client.stream(name, etag=etag, via_cache=via_cache)
        photo = self._run(opened.__aenter__())
        try:
            yield SyncPhotoStream(photo, self._run)
        finally:
            self._run(opened.__aexit__(None, None, None))

    def stat(self, name: PhotoName | str) -> PhotoInfo:
        """As :meth:`HaystackClient.stat`."""
        return self._run(self._client.stat(name))

    def delete(self, name: PhotoName | str, *, now: bool = False) -> int:
        """As :meth:`HaystackClient.delete`."""
        return self._run(self._client.delete(name, now=now))

    def undelete(self, name: PhotoName | str) -> int:
        """As :meth:`HaystackClient.undelete`."""
        return self._run(self._client.undelete(name))

    # -- how

    def _run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        if self._closed:
            work.close()
            raise RuntimeError("the client is closed")
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("this would wait for itself; within asyncio use HaystackClient")
        future: Future[_Result] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C while we wait: nobody wants the result any more.
            future.cancel()
            raise

    async def _end(self) -> None:
        await end_tasks(task for task in asyncio.all_tasks() if task is not asyncio.current_task())
        await self._client.__aexit__(None, None, None)
        await self._loop.shutdown_asyncgens()
        await self._loop.shutdown_default_executor()


class SyncPhotoStream:
    """A photo that is being read: ``info`` first, then its bytes by ``for``."""

    def __init__(self, photo: PhotoStream, run: Callable[[Coroutine[Any, Any, bytes]], bytes]) -> None:
        self.info = photo.info
        self._pieces = aiter(photo)
        self._run = run

    def __iter__(self) -> Iterator[bytes]:
        while piece := self._run(self._next()):
            yield piece

    async def _next(self) -> bytes:
        return await anext(self._pieces, b"")


def _uploadable(data: SyncUploadable) -> Uploadable:
    if isinstance(data, Readable):
        file = data
        return IteratorSource(_pieces(iter(lambda: file.read(PIECE_BYTES), b"")))
    if isinstance(data, Iterable) and not isinstance(data, bytes | bytearray | memoryview | str):
        return IteratorSource(_pieces(iter(data)))
    return data


async def _pieces(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    # Whatever produces them may block.
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece
