"""Exports photos into files, by a manifest or by what volumes hold: what ``haystack export`` does, without words."""

from __future__ import annotations

import asyncio
import mimetypes
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from haystack.client import HaystackClient, PhotoInfo, WrongContent
from haystack.errors import HaystackError
from haystack.fid import Fid
from tools.files import (
    FileExists,
    NewFile,
    file_digest,
    inside,
    safe_name,
    with_suffix_before_extension,
    write_pieces,
)
from tools.manifest import Entry, Manifest, ManifestError
from tools.output import Progress
from tools.pool import ClusterGone, FailureRun, run_pool
from tools.report import Report, iso_time

NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class ListedNeedle:
    """A live needle as a Store lists it. ``name`` and ``mime`` may be empty, and anything."""

    fid: str
    size_bytes: int
    name: str
    mime: str
    time_ms: int

    @property
    def label(self) -> str:
        """How it is called in messages."""
        return f"{self.fid} ({self.name})" if self.name else self.fid


class Plan(Protocol):
    """What is exported, and where to. One for each kind of source."""

    async def known(self, root: Path) -> bool:
        """Whether an earlier run has made this file."""

    async def export(self, client: HaystackClient, root: Path) -> None:
        """Make it. Raises HaystackError, OSError."""

    @property
    def label(self) -> str:
        """How it is called in messages."""

    @property
    def size_bytes(self) -> int:
        """Bytes to expect."""


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """A file of a manifest: its path, size, time and hash are known before."""

    entry: Entry
    force: bool

    @property
    def label(self) -> str:
        return self.entry.path

    @property
    def size_bytes(self) -> int:
        return self.entry.size_bytes

    async def known(self, root: Path) -> bool:
        return await asyncio.to_thread(self._is_there, root)

    async def export(self, client: HaystackClient, root: Path) -> None:
        path = await asyncio.to_thread(inside, root, self.entry.path)
        if not self.force and await asyncio.to_thread(path.exists):
            raise FileExists("another file is there and was left as it is; give --force to replace it")
        with await asyncio.to_thread(NewFile, path.parent) as file:
            await fetch(client, self.entry.fid, self.entry.size_bytes, file)
            if file.digest != self.entry.xxh3:
                raise WrongContent(
                    f"{self.entry.fid}: the hash of the photo is {file.digest}, the manifest says {self.entry.xxh3}; "
                    "no file was made"
                )
            await asyncio.to_thread(file.place, path, force=self.force, mtime_ns=self.entry.mtime_ns)

    def _is_there(self, root: Path) -> bool:
        path = root / self.entry.path
        try:
            status = path.stat()
            if status.st_size != self.entry.size_bytes:
                return False
            return status.st_mtime_ns == self.entry.mtime_ns or file_digest(path) == self.entry.xxh3
        except (FileNotFoundError, NotADirectoryError):
            return False


class NeedleExport:
    """Exports of listed needles, whose names have to be found: what is taken, and what earlier runs have made.

    Parameters
    ----------
    manifest: notes which file is which photo, in the target folder; None for a dry run.
    wall_clock: seconds since 1970.
    """

    def __init__(self, manifest: Manifest | None, *, wall_clock: Callable[[], float] = time.time) -> None:
        self._manifest = manifest
        self._wall_clock = wall_clock
        self._made: dict[str, tuple[str, int]] = {}
        self._taken: set[str] = set()
        self._placing = asyncio.Lock()

    def load(self, entries: Iterable[Entry]) -> None:
        """Take in what earlier runs have made. Blocks while it is read. Raises ManifestError."""
        for entry in entries:
            self._made[entry.fid] = (entry.path, entry.size_bytes)
            self._taken.add(entry.path)

    def plan(self, needle: ListedNeedle) -> NeedleFile:
        """Return the export of one needle."""
        return NeedleFile(needle, self)

    def made(self, fid: str) -> tuple[str, int] | None:
        """Return path and size of the file that an earlier run made for a photo."""
        return self._made.get(fid)

    async def place(self, file: NewFile, needle: ListedNeedle, root: Path) -> str:
        """Put a whole file under the first of its names that is free; returns it. Raises FileExists."""
        # One at a time: of two photos with the same name, one must not look at the file while the other makes it.
        async with self._placing:
            for name in names_for(needle):
                if name in self._taken:
                    continue
                if await asyncio.to_thread(_place_or_adopt, file, root, name, needle.time_ms * NS_PER_MS):
                    self._taken.add(name)
                    return name
        raise FileExists("files with all the names that it may have are there already, and were left as they are")

    async def note(self, needle: ListedNeedle, path: str, digest: str, info: PhotoInfo) -> None:
        """Write a finished file down."""
        assert self._manifest is not None
        await self._manifest.add(
            Entry(
                path=path,
                size_bytes=needle.size_bytes,
                mtime_ns=needle.time_ms * NS_PER_MS,
                xxh3=digest,
                fid=needle.fid,
                etag=info.etag,
                url=info.url,
                time=iso_time(self._wall_clock()),
            )
        )


@dataclass(frozen=True, slots=True)
class NeedleFile:
    """A needle that becomes a file."""

    needle: ListedNeedle
    exports: NeedleExport

    @property
    def label(self) -> str:
        return self.needle.label

    @property
    def size_bytes(self) -> int:
        return self.needle.size_bytes

    async def known(self, root: Path) -> bool:
        made = self.exports.made(self.needle.fid)
        return made is not None and await asyncio.to_thread(_has_size, root / made[0], made[1])

    async def export(self, client: HaystackClient, root: Path) -> None:
        made = self.exports.made(self.needle.fid)
        with await asyncio.to_thread(NewFile, root) as file:
            info = await fetch(client, self.needle.fid, self.needle.size_bytes, file)
            digest = file.digest
            if made is None:
                path = await self.exports.place(file, self.needle, root)
            else:
                # It was made once, and is gone or has another size since: again under its name, if that is free.
                path = made[0]
                target = await asyncio.to_thread(inside, root, path)
                await asyncio.to_thread(file.place, target, mtime_ns=self.needle.time_ms * NS_PER_MS)
        await self.exports.note(self.needle, path, digest, info)


@dataclass(slots=True)
class Exporter:
    """One export.

    Parameters
    ----------
    root: the folder to fill.
    jobs: files at a time.
    dry_run: only count.
    now: a clock that never goes back, in seconds.
    """

    client: HaystackClient
    root: Path
    jobs: int
    dry_run: bool
    progress: Progress
    now: Callable[[], float] = time.monotonic
    report: Report = field(default_factory=Report)
    _failure_run: FailureRun = field(default_factory=FailureRun)

    async def run(self, plans: AsyncIterator[Plan]) -> Report:
        """Export everything; failed files are in the report. Raises ManifestError."""
        started_seconds = self.now()
        try:
            await run_pool(plans, self._handle, self.jobs)
        except ClusterGone as gone:
            self.report.aborted = str(gone)
        self.report.seconds = self.now() - started_seconds
        return self.report

    async def _handle(self, plan: Plan) -> None:
        try:
            if await plan.known(self.root):
                self.report.known += 1
                self.report.known_bytes += plan.size_bytes
            else:
                if not self.dry_run:
                    await plan.export(self.client, self.root)
                self.report.files += 1
                self.report.size_bytes += plan.size_bytes
                self._failure_run.succeeded()
        except ManifestError:
            raise
        except (HaystackError, OSError) as error:
            self.report.fail(plan.label, error)
            self._failure_run.failed(error)
        self.progress.advance(plan.size_bytes)


async def fetch(client: HaystackClient, fid: str, size_bytes: int, file: NewFile) -> PhotoInfo:
    """Write a photo into a new file. Raises WrongContent when its size is not the one that is expected."""
    async with client.stream(fid) as photo:
        if photo.info.size_bytes != size_bytes:
            raise WrongContent(f"{fid}: has {photo.info.size_bytes} bytes where {size_bytes} were expected")
        await write_pieces(file, photo)
        return photo.info


async def from_manifest(entries: Iterable[Entry], *, force: bool) -> AsyncIterator[Plan]:
    """Yield what a manifest lists."""
    for entry in entries:
        yield ManifestFile(entry, force)


def names_for(needle: ListedNeedle) -> list[str]:
    """Return the paths that the file of a needle may have, below the target folder, the preferred one first.

    Each volume has a folder. A name that another photo has taken gets the photo's id before its extension.
    """
    fid = Fid.parse(needle.fid)
    identity = f"{fid.key:x}" + (f"_{fid.alternate}" if fid.alternate else "")
    extension = mimetypes.guess_extension(needle.mime) or ""
    name = safe_name(needle.name, identity + extension)
    return [f"{fid.volume}/{name}", f"{fid.volume}/{with_suffix_before_extension(name, f'~{identity}')}"]


def _has_size(path: Path, size_bytes: int) -> bool:
    try:
        return path.stat().st_size == size_bytes
    except (FileNotFoundError, NotADirectoryError):
        return False


def _place_or_adopt(file: NewFile, root: Path, name: str, mtime_ns: int) -> bool:
    """Put the file there, or take the one that is there when it is the same; False when it is another one.

    The same: a run that was killed had made the file and not yet written it down.
    """
    target = inside(root, name)
    try:
        file.place(target, mtime_ns=mtime_ns)
    except FileExists:
        return _has_size(target, file.size_bytes) and file_digest(target) == file.digest
    return True
