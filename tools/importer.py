"""Imports a folder: walk, decide, upload, write down. What ``haystack import`` does, without words."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol

from haystack.client import FileSource, HaystackClient
from haystack.errors import HaystackError
from tools.images import HEAD_BYTES, image_type, upload_type
from tools.manifest import Entry, Manifest, ManifestError
from tools.output import Progress
from tools.pool import ClusterGone, FailureRun, run_pool
from tools.report import Report, iso_time
from tools.site import NotYou
from tools.walk import Found, Unreadable, walk

WALK_BATCH = 128


class Uploader(Protocol):
    """Stores one file and writes it down."""

    async def __call__(self, found: Found, source: FileSource) -> None:
        """Raises HaystackError or OSError when it could not be stored, ManifestError when not be written down."""


@dataclass(slots=True)
class Importer:
    """One import.

    Parameters
    ----------
    root: the folder.
    done: path → (size in bytes, mtime in ns) of what earlier runs have imported.
    upload: stores one file; None for a dry run.
    jobs: files at a time.
    all_files: take what is no image, too.
    progress: is told of the bytes of each file that is finished in any way.
    leave_aside: a file that is not to be imported: the manifest itself, when it lies in the folder.
    types: MIME types of images to take; None for all.
    now: a clock that never goes back, in seconds.
    """

    root: Path
    done: dict[str, tuple[int, int]]
    upload: Uploader | None
    jobs: int
    all_files: bool
    progress: Progress
    leave_aside: Path | None = None
    types: frozenset[str] | None = None
    now: Callable[[], float] = time.monotonic
    report: Report = field(default_factory=Report)
    _failure_run: FailureRun = field(default_factory=FailureRun)

    async def run(self) -> Report:
        """Import everything; failed files are in the report. Raises ManifestError."""
        started_seconds = self.now()
        try:
            await run_pool(self._files(), self._handle, self.jobs)
        except ClusterGone as gone:
            self.report.aborted = str(gone)
        self.report.seconds = self.now() - started_seconds
        return self.report

    async def _files(self) -> AsyncIterator[Found]:
        entries = walk(self.root)
        while batch := await asyncio.to_thread(_next_batch, entries):
            for entry in batch:
                if isinstance(entry, Unreadable):
                    self.report.fail(entry.path, entry.reason)
                elif self.leave_aside is None or self.root / entry.path != self.leave_aside:
                    yield entry

    async def _handle(self, found: Found) -> None:
        if self.done.get(found.path) == (found.size_bytes, found.mtime_ns):
            self.report.known += 1
            self.report.known_bytes += found.size_bytes
        else:
            await self._import(found)
        self.progress.advance(found.size_bytes)

    async def _import(self, found: Found) -> None:
        try:
            async with FileSource(self.root / found.path) as source:
                if not self.all_files and not self._is_taken(image_type(source.head[:HEAD_BYTES])):
                    self.report.no_images += 1
                    return
                if self.upload is not None:
                    await self.upload(found, source)
        except (ManifestError, NotYou):
            raise
        except (HaystackError, OSError) as error:
            self.report.fail(found.path, error)
            self._failure_run.failed(error)
            return
        self._failure_run.succeeded()
        self.report.files += 1
        self.report.size_bytes += source.stamp.size_bytes

    def _is_taken(self, mime: str | None) -> bool:
        return mime is not None and (self.types is None or mime in self.types)


def uploader(
    client: HaystackClient,
    manifest: Manifest,
    *,
    replication: str | None = None,
    ttl: str = "",
    wall_clock: Callable[[], float] = time.time,
) -> Uploader:
    """Return what uploads a file and writes it into the manifest."""

    async def upload(found: Found, source: FileSource) -> None:
        name = found.path.rpartition("/")[2]
        mime = upload_type(source.head, name)
        stored = await client.upload(source, name=name, mime=mime, replication=replication, ttl=ttl)
        assert source.digest is not None
        await manifest.add(
            Entry(
                path=found.path,
                size_bytes=stored.size_bytes,
                mtime_ns=source.stamp.mtime_ns,
                xxh3=source.digest,
                fid=stored.fid,
                etag=stored.etag,
                url=stored.url,
                time=iso_time(wall_clock()),
            )
        )

    return upload


def imported(manifest: Manifest) -> dict[str, tuple[int, int]]:
    """Return path → (size, mtime) of what a manifest holds. Blocks. Raises ManifestError."""
    return {entry.path: (entry.size_bytes, entry.mtime_ns) for entry in manifest.entries()}


def _next_batch(entries: Iterator[Found | Unreadable]) -> list[Found | Unreadable]:
    return list(islice(entries, WALK_BATCH))
