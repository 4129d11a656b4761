"""The manifest of an import or export: which file is which photo. JSON, one object a line.

The first line says what it belongs to: ``{"haystackManifest": 1, "root": …, "clusterId": …}``. Each further line is a
file: ``{"path", "size", "mtimeNs", "xxh3", "fid", "etag", "url", "time"}``, ``path`` relative to the root and ``xxh3``
the hash of the content. A later line of the same path replaces an earlier one. Lines are written as transfers finish
and synced once a second, so that a killed run repeats next to nothing; a last line that was cut off is taken away.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haystack.errors import HaystackError

FORMAT = 1
MAX_LINE_BYTES = 64 * 1024
MAX_PENDING = 1000
"""Entries that wait for the disk before transfers have to wait too."""

SYNC_SECONDS = 1.0


class ManifestError(HaystackError):
    """A manifest cannot be used: damaged, in use, or one of another folder or cluster."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file and its photo. ``time`` is when it was transferred, in ISO 8601."""

    path: str
    size_bytes: int
    mtime_ns: int
    xxh3: str
    fid: str
    etag: str
    url: str
    time: str


@dataclass(frozen=True, slots=True)
class Head:
    """What a manifest belongs to."""

    root: str
    cluster_id: str


def read_manifest(path: Path) -> tuple[Head, Iterator[Entry]]:
    """Open a manifest for reading. Raises ManifestError, also while the entries are read, and OSError."""
    lines = _lines(path)
    first = next(lines, None)
    if first is None:
        raise ManifestError(f"{path}: is empty, not a manifest of an import or export")
    return _head(path, first[1]), (_entry(path, number, line) for number, line in lines)


class Manifest:
    """A manifest that is continued. Use it as an async context manager; leaving it syncs all that was added.

    Parameters
    ----------
    path: the file; made when it is not there.
    head: what it has to belong to.
    now: a clock that never goes back, in seconds.

    Raises (on entering)
    --------------------
    ManifestError: another command uses it, it belongs to another folder or cluster, or it is damaged.
    """

    def __init__(self, path: Path, head: Head, *, now: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._head = head
        self._now = now
        self._descriptor: int | None = None
        self._pending: list[bytes] = []
        self._changed = asyncio.Condition()
        self._closing = False
        self._failure: OSError | None = None
        self._writer: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Manifest:
        await asyncio.to_thread(self._open)
        self._writer = asyncio.create_task(self._write_all())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        # Finished transfers are written down even when the command is interrupted: no second interruption in between.
        async with self._changed:
            self._closing = True
            self._changed.notify_all()
        assert self._writer is not None
        await asyncio.shield(self._writer)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        if self._failure is not None and exc_info[0] is None:
            raise self._error(self._failure)

    def entries(self) -> Iterator[Entry]:
        """Yield what was there when it was opened. Blocks. Raises ManifestError at a damaged line."""
        lines = _lines(self.path)
        next(lines)
        return (_entry(self.path, number, line) for number, line in lines)

    async def add(self, entry: Entry) -> None:
        """Write a line soon; wait when too many wait already. Raises ManifestError when the disk takes no more."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._pending) < MAX_PENDING or self._failure)
            if self._failure is not None:
                raise self._error(self._failure)
            self._pending.append(_line(entry))
            self._changed.notify_all()

    async def _write_all(self) -> None:
        synced_seconds = self._now()
        try:
            while True:
                async with self._changed:
                    await self._changed.wait_for(lambda: self._pending or self._closing)
                    batch, self._pending = b"".join(self._pending), []
                    self._changed.notify_all()
                    closing = self._closing
                due = closing or self._now() - synced_seconds >= SYNC_SECONDS
                await asyncio.to_thread(self._append, batch, due)
                if due:
                    synced_seconds = self._now()
                if closing:
                    return
        except OSError as error:
            async with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _append(self, data: bytes, sync: bool) -> None:
        assert self._descriptor is not None
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
        if sync:
            os.fdatasync(self._descriptor)

    def _open(self) -> None:
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ManifestError(
                f"{self.path}: the manifest cannot be opened: {error.strerror}; an import takes another place with "
                "--manifest FILE"
            ) from error
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ManifestError(f"{self.path}: is in use by another import or export; wait for its end") from None
            _cut_unfinished_line(descriptor)
            if os.fstat(descriptor).st_size == 0:
                os.write(descriptor, _head_line(self._head))
                os.fsync(descriptor)
            else:
                self._check_head()
            stack.pop_all()
        self._descriptor = descriptor

    def _check_head(self) -> None:
        head, _ = read_manifest(self.path)
        if head.cluster_id != self._head.cluster_id:
            raise ManifestError(
                f"{self.path}: belongs to cluster {head.cluster_id}, and this is cluster {self._head.cluster_id}; give "
                "another file with --manifest to begin anew"
            )
        if head.root != self._head.root:
            raise ManifestError(
                f"{self.path}: belongs to the folder {head.root}, not to {self._head.root}; give another file with "
                "--manifest, or change the root in its first line if the folder was moved"
            )

    def _error(self, error: OSError) -> ManifestError:
        return ManifestError(f"{self.path}: cannot be written: {error.strerror or error}; what finished since is lost")


def _cut_unfinished_line(descriptor: int) -> None:
    size_bytes = os.fstat(descriptor).st_size
    start = max(0, size_bytes - MAX_LINE_BYTES)
    tail = os.pread(descriptor, size_bytes - start, start)
    if tail and not tail.endswith(b"\n"):
        os.ftruncate(descriptor, start + tail.rfind(b"\n") + 1 if b"\n" in tail else start)


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            # A run that goes on, or was killed, has not finished its last line.
            if not raw.endswith(b"\n") and len(raw) <= MAX_LINE_BYTES:
                return
            try:
                document = json.loads(raw)
            except ValueError as error:
                raise ManifestError(f"{path}, line {number}: is no JSON: {error}; correct or remove it") from error
            if not isinstance(document, dict):
                raise ManifestError(f"{path}, line {number}: is no JSON object; correct or remove it")
            yield number, document


def _head(path: Path, document: dict[str, Any]) -> Head:
    if document.get("haystackManifest") != FORMAT:
        raise ManifestError(
            f"{path}: its first line is not that of a manifest of version {FORMAT}: {str(document)[:200]}"
        )
    return Head(str(document.get("root", "")), str(document.get("clusterId", "")))


def _entry(path: Path, number: int, document: dict[str, Any]) -> Entry:
    texts = [document.get(name) for name in ("path", "xxh3", "fid", "etag", "url", "time")]
    size_bytes, mtime_ns = document.get("size"), document.get("mtimeNs")
    if not all(isinstance(one, str) for one in texts) or type(size_bytes) is not int or type(mtime_ns) is not int:
        raise ManifestError(f"{path}, line {number}: a field is missing or wrong: {str(document)[:200]}")
    name, xxh3, fid, etag, url, moment = (str(one) for one in texts)
    return Entry(name, size_bytes, mtime_ns, xxh3, fid, etag, url, moment)


def _head_line(head: Head) -> bytes:
    return _dump({"haystackManifest": FORMAT, "root": head.root, "clusterId": head.cluster_id})


def _line(entry: Entry) -> bytes:
    return _dump(
        {
            "path": entry.path,
            "size": entry.size_bytes,
            "mtimeNs": entry.mtime_ns,
            "xxh3": entry.xxh3,
            "fid": entry.fid,
            "etag": entry.etag,
            "url": entry.url,
            "time": entry.time,
        }
    )


def _dump(document: dict[str, Any]) -> bytes:
    try:
        return json.dumps(document, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        # A file name that is no UTF-8; escapes keep it as it is.
        return json.dumps(document).encode() + b"\n"
