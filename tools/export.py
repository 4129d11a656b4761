"""``haystack export``: bring photos back into files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import click

from haystack.units import format_size
from tools.app import App, cluster_options, pass_app
from tools.connect import MAX_JOBS, connect, run_async
from tools.control import Control
from tools.exporter import Exporter, NeedleExport, Plan, from_manifest
from tools.listing import Listing
from tools.manifest import Entry, Head, Manifest, read_manifest
from tools.output import Output
from tools.report import Report

DEFAULT_JOBS = 16
EXPORT_MANIFEST = ".haystack-export.jsonl"


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--manifest",
    "manifest_path",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Export the files of this manifest, under the paths that they had.",
)
@click.option("--volume", metavar="N", type=click.IntRange(1), help="Export what one volume holds.")
@click.option("--all", "everything", is_flag=True, help="Export what all volumes hold.")
@click.option(
    "--jobs", type=click.IntRange(1, MAX_JOBS), default=DEFAULT_JOBS, show_default=True, help="Files at a time."
)
@click.option("--force", is_flag=True, help="With --manifest: replace files that are there and differ.")
@click.option("--dry-run", is_flag=True, help="Say what would be exported; change nothing.")
@cluster_options
@pass_app
def export(
    app: App,
    folder: Path,
    manifest_path: Path | None,
    volume: int | None,
    everything: bool,
    jobs: int,
    force: bool,
    dry_run: bool,
) -> int:
    """Write photos into files below DIR, each verified by size, and by hash where the manifest has one.

    With --manifest the files get the paths that they were imported from. With --volume and --all they get the names
    that were stored with them, in one folder for each volume; this needs the cluster's secret. An export that was
    interrupted goes on where it was.
    """
    if sum((manifest_path is not None, volume is not None, everything)) != 1:
        raise click.UsageError("give one of --manifest FILE, --volume N and --all")
    if force and manifest_path is None:
        raise click.UsageError("--force goes with --manifest")
    if not dry_run:
        folder.mkdir(parents=True, exist_ok=True)
    root = folder.resolve()
    if manifest_path is not None:
        work = _by_manifest(app, root, manifest_path, jobs, force, dry_run)
    else:
        work = _by_volumes(app, root, volume, jobs, dry_run)
    return run_async(work)


async def _by_manifest(app: App, root: Path, manifest_path: Path, jobs: int, force: bool, dry_run: bool) -> int:
    entries = await asyncio.to_thread(_read, manifest_path)
    total_bytes = sum(entry.size_bytes for entry in entries.values())
    async with connect(app, jobs=jobs, patient=True) as client:
        with app.output.progress("Exporting", total_bytes, "bytes") as progress:
            exporter = Exporter(client, root, jobs, dry_run, progress)
            report = await exporter.run(from_manifest(entries.values(), force=force))
    return _summary(app.output, report, None, dry_run)


async def _by_volumes(app: App, root: Path, volume: int | None, jobs: int, dry_run: bool) -> int:
    async with (
        connect(app, jobs=jobs, patient=True) as client,
        Control(app.directory_urls(), app.secret) as control,
    ):
        listing = await Listing.load(control, volume)
        with app.output.progress("Exporting", listing.live_bytes, "bytes") as progress:
            exporter = Exporter(client, root, jobs, dry_run, progress)
            path = root / EXPORT_MANIFEST
            if dry_run:
                exports = NeedleExport(None)
                await asyncio.to_thread(_load_if_there, exports, path)
                report = await exporter.run(_plans(listing, exports))
            else:
                async with Manifest(path, Head(str(root), listing.cluster_id)) as manifest:
                    exports = NeedleExport(manifest)
                    await asyncio.to_thread(lambda: exports.load(manifest.entries()))
                    report = await exporter.run(_plans(listing, exports))
    return _summary(app.output, report, path, dry_run)


async def _plans(listing: Listing, exports: NeedleExport) -> AsyncIterator[Plan]:
    async for needle in listing.needles():
        yield exports.plan(needle)


def _load_if_there(exports: NeedleExport, path: Path) -> None:
    if path.exists():
        _, entries = read_manifest(path)
        exports.load(entries)


def _read(path: Path) -> dict[str, Entry]:
    _, entries = read_manifest(path)
    return {entry.path: entry for entry in entries}


def _summary(output: Output, report: Report, manifest: Path | None, dry_run: bool) -> int:
    output.document(report.document(manifest, dry_run=dry_run))
    output.say(f"{'Would export' if dry_run else 'Exported'} {report.amount()}{'' if dry_run else report.rate()}")
    if report.known:
        output.say(f"Already there: {report.known:,} files, {format_size(report.known_bytes)}")
    report.say_failures(output)
    if manifest is not None:
        output.say(f"Manifest: {manifest}")
    return report.exit_code
