"""``haystack backup``: the whole cluster, as it is at one moment, into a folder; of volumes only what is new."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import click

from haystack.errors import ConfigError, FolderError, HaystackError, VolumeUnavailable
from haystack.units import SIZE_SYNTAX, format_duration, format_size, parse_size
from tools.app import EXIT_FAILED, App, cluster_options, pass_app
from tools.backup_files import BackupFolder, Manifest, SavedVolume
from tools.control import Control
from tools.output import Progress
from tools.snapshots import (
    TAKE_SILENCE_SECONDS,
    SnapshotView,
    delete_snapshot,
    fetch_storage,
    show_snapshot,
    take_snapshot,
)
from tools.view import ClusterView, parse_cluster
from tools.volume_fetch import OtherHistory, Take, fetch, size_of
from tools.volume_source import Extent, VolumeCompacted, VolumeSource, open_session, sources_of

JOBS = 4
"""Volumes that are fetched at the same time."""

MAX_JOBS = 64
HOLD_SECONDS = 7 * 86400
"""The snapshot of a backup that was killed is given up after that."""

COMPACTED_TRIES = 10
COMPACTED_PAUSE_SECONDS = 1.0
"""How often, and how long, to wait until the Directory tells where a compaction has brought a volume."""


@dataclass(slots=True)
class Summary:
    """What a run has done."""

    copied_bytes: int = 0
    new: list[int] = field(default_factory=list)
    grown: list[int] = field(default_factory=list)
    same: list[int] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)


@click.command()
@click.argument("target", metavar="TARGET", type=click.Path(file_okay=False, path_type=Path))
@click.option("--snapshot", "name", metavar="NAME", help="Copy this snapshot, not the cluster as it is now.")
@click.option("--jobs", type=click.IntRange(1, MAX_JOBS), default=JOBS, show_default=True, help="Volumes at a time.")
@click.option("--bytes-per-second", metavar="SIZE", help="Read no more than that in a second [default: no limit].")
@cluster_options
@pass_app
def backup(app: App, target: Path, name: str | None, jobs: int, bytes_per_second: str | None) -> int:
    """Copy the whole cluster into the folder TARGET, consistently, while uploads go on.

    Of a volume that TARGET has already only what is new is copied, unless it was compacted since. Every photo is
    verified. A run that is interrupted leaves the backup before it as it was, and the next one goes on with what is
    there. `haystack restore` makes a cluster of it.

    The exit code is 1 when something could not be copied; then TARGET still has the backup before.
    """
    rate = _rate(bytes_per_second)
    began = time.monotonic()
    folder = BackupFolder(target)
    with folder.locked():
        manifest, summary = asyncio.run(_run(app, folder, name, jobs, rate))
    seconds = time.monotonic() - began
    _report(app, target, manifest, summary, seconds)
    return EXIT_FAILED if summary.failed else 0


async def _run(
    app: App, folder: BackupFolder, name: str | None, jobs: int, rate: int | None
) -> tuple[Manifest, Summary]:
    async with (
        Control(app.directory_urls(), app.secret, timeout_seconds=TAKE_SILENCE_SECONDS) as control,
        open_session() as session,
        _held(app, control, name) as snapshot,
    ):
        view = parse_cluster(await control.directory("GET", "/dir/status"))
        before = folder.read()
        if before is not None and before.cluster_id != view.cluster_id:
            raise FolderError(
                f"{folder.path}: has a backup of cluster {before.cluster_id}, and this is {view.cluster_id}; choose "
                "another folder"
            )
        storage = folder.path / f"directory-{snapshot.created_ms}.lmdb"
        await fetch_storage(session, app.directory_url(), app.secret(), snapshot, storage)
        with app.output.progress("backup", snapshot.volume_bytes, "bytes") as bar:
            run = _Run(app, folder, before, control, session, view, snapshot, rate, bar)
            saved, summary = await run.all(jobs)
        manifest = Manifest(
            view.cluster_id,
            snapshot.name,
            snapshot.created_ms,
            storage.name,
            snapshot.directory_bytes,
            snapshot.checksum,
            dict(sorted(saved.items())),
        )
        if not summary.failed:
            await asyncio.to_thread(folder.write, manifest)
        return manifest, summary


@asynccontextmanager
async def _held(app: App, control: Control, name: str | None) -> AsyncIterator[SnapshotView]:
    """The snapshot to copy: the one of that name, else one that is held for as long as this takes."""
    if name is not None:
        yield await show_snapshot(control, name)
        return
    taken = await take_snapshot(control, f"backup-{time.time_ns() // 1_000_000}", HOLD_SECONDS)
    try:
        yield taken
    finally:
        try:
            await delete_snapshot(control, taken.name)
        except HaystackError as error:
            app.output.note(f"haystack: snapshot {taken.name} is still held: {error}; `haystack snapshot delete` it")


class _Run:
    """The volumes of one backup."""

    def __init__(
        self,
        app: App,
        folder: BackupFolder,
        before: Manifest | None,
        control: Control,
        session: aiohttp.ClientSession,
        view: ClusterView,
        snapshot: SnapshotView,
        rate: int | None,
        bar: Progress,
    ) -> None:
        self._app = app
        self._folder = folder
        self._before = before.volumes if before else {}
        self._control = control
        self._session = session
        self._view = view
        self._snapshot = snapshot
        self._take = _limited(rate, bar)
        self._bar = bar
        self._summary = Summary()

    async def all(self, jobs: int) -> tuple[dict[int, SavedVolume], Summary]:
        """Fetch all volumes, so many at a time; those that fail are told in the summary."""
        saved: dict[int, SavedVolume] = {}
        working = asyncio.Semaphore(jobs)

        async def work(volume: int) -> None:
            async with working:
                try:
                    saved[volume] = await self._volume(volume)
                except ConfigError:
                    raise
                except (HaystackError, OSError) as error:
                    self._summary.failed[volume] = str(error)

        try:
            async with asyncio.TaskGroup() as group:
                for volume in self._snapshot.volumes:
                    group.create_task(work(volume))
        except ExceptionGroup as group_error:
            raise group_error.exceptions[0] from None
        return saved, self._summary

    async def _volume(self, volume: int) -> SavedVolume:
        extent = self._snapshot.volumes[volume]
        sources = sources_of(self._session, self._view, self._view.volume(volume), self._app.secret)
        for _ in range(COMPACTED_TRIES):
            if volume in self._snapshot.lost:
                break
            try:
                return await self._extent(extent, sources)
            except VolumeCompacted:
                await asyncio.sleep(COMPACTED_PAUSE_SECONDS)
                self._snapshot = await show_snapshot(self._control, self._snapshot.name)
                extent = self._snapshot.volumes[volume]
        raise VolumeUnavailable(f"volume {volume} was compacted without regard to this snapshot; take a new one")

    async def _extent(self, extent: Extent, sources: Sequence[VolumeSource]) -> SavedVolume:
        known = self._before.get(extent.volume)
        if known is not None and (known.uuid, known.generation) == (extent.uuid, extent.generation):
            try:
                return await self._fetch(extent, sources, known.file, known)
            except OtherHistory as error:
                self._app.output.note(f"haystack: {error}; it is copied anew")
        name = f"{extent.volume}.{extent.generation}.vol"
        if known is not None and self._folder.volume(name).name == known.file:
            name = self._folder.new_name(extent.volume, extent.generation)
        try:
            return await self._fetch(extent, sources, name, None)
        except OtherHistory:
            # What a run left that was interrupted long ago.
            return await self._fetch(extent, sources, self._folder.new_name(extent.volume, extent.generation), None)

    async def _fetch(
        self, extent: Extent, sources: Sequence[VolumeSource], name: str, known: SavedVolume | None
    ) -> SavedVolume:
        path = self._folder.volume(name)
        here = min(size_of(path), extent.end)
        self._bar.advance(here)
        fetched = await fetch(
            extent,
            sources,
            path,
            self._take,
            trusted=known.size_bytes if known else 0,
            known_damage=known.damage if known else (),
        )
        summary = self._summary
        summary.copied_bytes += fetched.copied_bytes
        (summary.new if known is None else summary.grown if fetched.copied_bytes else summary.same).append(
            extent.volume
        )
        damage = tuple(one for one in fetched.damage if one[0] < extent.end)
        return SavedVolume(extent.volume, extent.uuid, extent.generation, extent.end, name, damage)


def _limited(rate: int | None, bar: Progress) -> Take:
    from haystack.store.copies.bandwidth import Bandwidth

    bandwidth = Bandwidth(rate)

    async def take(size_bytes: int) -> None:
        await bandwidth.take(size_bytes)
        bar.advance(size_bytes)

    return take


def _rate(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        rate = parse_size(text)
    except ValueError as error:
        raise click.BadParameter(f"--bytes-per-second {text}: {error}; expected {SIZE_SYNTAX}") from error
    if rate < 1:
        raise click.BadParameter("--bytes-per-second: at least 1")
    return rate


def _report(app: App, target: Path, manifest: Manifest, summary: Summary, seconds: float) -> None:
    out = app.output
    damaged = {volume: one.damage for volume, one in manifest.volumes.items() if one.damage}
    total_bytes = sum(one.size_bytes for one in manifest.volumes.values())
    document: dict[str, Any] = {
        "ok": not summary.failed,
        "target": str(target),
        "takenMs": manifest.taken_ms,
        "snapshot": manifest.snapshot,
        "volumes": len(manifest.volumes),
        "volumeBytes": total_bytes,
        "copiedBytes": summary.copied_bytes,
        "directoryBytes": manifest.directory_bytes,
        "new": sorted(summary.new),
        "grown": sorted(summary.grown),
        "same": sorted(summary.same),
        "failed": {str(volume): error for volume, error in sorted(summary.failed.items())},
        "damaged": {str(volume): [list(one) for one in damage] for volume, damage in damaged.items()},
        "seconds": round(seconds, 3),
    }
    out.document(document)
    for volume, error in sorted(summary.failed.items()):
        out.note(f"haystack: volume {volume}: {error}")
    for volume, damage in damaged.items():
        lost = sum(size for _, size in damage)
        out.note(
            f"haystack: volume {volume}: {lost} bytes in {len(damage)} places are damaged on all Stores that have it; "
            "they are copied as they are. `haystack volume check --full` tells more"
        )
    if summary.failed:
        out.note(f"haystack: {len(summary.failed)} volumes could not be copied; {target} still has the backup before.")
        return
    out.say(
        f"Backup of {format_size(total_bytes)} in {len(manifest.volumes)} volumes, in {format_duration(seconds)}: "
        f"{format_size(summary.copied_bytes)} copied ({len(summary.new)} volumes whole, the new part of "
        f"{len(summary.grown)}, nothing of {len(summary.same)}), and {format_size(manifest.directory_bytes)} of the "
        "Directory."
    )
