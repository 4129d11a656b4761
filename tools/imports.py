"""``haystack import``: bring a folder of photos into the cluster."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import click

from haystack.client import UnexpectedAnswer
from haystack.units import format_size
from tools.app import App, cluster_options, pass_app, replication_option, ttl_option
from tools.connect import MAX_JOBS, connect, run_async
from tools.importer import Importer, imported, uploader
from tools.manifest import Head, Manifest, ManifestError, read_manifest
from tools.output import Output, Progress
from tools.report import Report
from tools.walk import Found, walk

DEFAULT_JOBS = 32
MANIFEST_SUFFIX = ".haystack-manifest.jsonl"


@click.command("import")
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--jobs", type=click.IntRange(1, MAX_JOBS), default=DEFAULT_JOBS, show_default=True, help="Files at a time."
)
@click.option("--all", "all_files", is_flag=True, help="Take all files and not only images.")
@click.option(
    "--manifest",
    "manifest_path",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"List of file and fid [default: DIR{MANIFEST_SUFFIX}, beside DIR].",
)
@click.option("--dry-run", is_flag=True, help="Say what would be imported; change nothing.")
@replication_option
@ttl_option
@cluster_options
@pass_app
def import_(
    app: App,
    folder: Path,
    jobs: int,
    all_files: bool,
    manifest_path: Path | None,
    dry_run: bool,
    replication: str | None,
    ttl: str,
) -> int:
    """Store all photos below DIR.

    Images are told by their content; the rest is left aside, unless --all. Every stored file is noted in the manifest
    with its fid, so that an import that was interrupted goes on where it was, and a second one takes new and changed
    files only. Symbolic links to folders are not followed.
    """
    root = folder.resolve()
    path = (manifest_path or default_manifest(root)).resolve()
    if dry_run:
        return run_async(_dry_run(app, root, path, jobs, all_files))
    return run_async(_import(app, root, path, jobs, all_files, replication, ttl))


def default_manifest(root: Path) -> Path:
    """Return where the manifest of a folder is: beside it, so that the folder itself is only read."""
    return root.with_name(root.name + MANIFEST_SUFFIX) if root.name else root / f"root{MANIFEST_SUFFIX}"


async def _import(
    app: App, root: Path, path: Path, jobs: int, all_files: bool, replication: str | None, ttl: str
) -> int:
    head = Head(str(root), await _cluster_id(app))
    async with connect(app, jobs=jobs, patient=True) as client, Manifest(path, head) as manifest:
        done = await asyncio.to_thread(imported, manifest)
        with app.output.progress("Importing", None, "bytes") as progress:
            upload = uploader(client, manifest, replication=replication, ttl=ttl)
            importer = Importer(root, done, upload, jobs, all_files, progress, path)
            report = await _watched(app.output, importer)
    return _summary(app.output, report, path, dry_run=False)


async def _cluster_id(app: App) -> str:
    async with connect(app) as client:
        cluster_id = (await client.cluster_status()).get("ClusterId")
    if not isinstance(cluster_id, str):
        raise UnexpectedAnswer(f"{app.directory_url()}/cluster/status: the answer has no text 'ClusterId'")
    return cluster_id


async def _dry_run(app: App, root: Path, path: Path, jobs: int, all_files: bool) -> int:
    done = await asyncio.to_thread(_known, path, root)
    with app.output.progress("Looking", None, "bytes") as progress:
        importer = Importer(root, done, None, jobs, all_files, progress, path)
        report = await _watched(app.output, importer)
    return _summary(app.output, report, path, dry_run=True)


async def _watched(output: Output, importer: Importer) -> Report:
    """Run an import; if somebody watches, count the files meanwhile, so that the bar knows its end."""
    if output.json_mode or not output.stderr.isatty():
        return await importer.run()
    stop = threading.Event()
    counting = asyncio.create_task(asyncio.to_thread(_count, importer.root, stop))
    try:
        importer.progress = _GrowingProgress(importer.progress, counting)
        return await importer.run()
    finally:
        stop.set()
        await counting


class _GrowingProgress:
    """A bar whose end becomes known on the way."""

    def __init__(self, progress: Progress, counting: asyncio.Task[int]) -> None:
        self._progress = progress
        self._done = 0
        self._counting = counting

    def advance(self, amount: int = 1) -> None:
        self._done += amount
        self.at(self._done)

    def at(self, done: int, total: int | None = None) -> None:
        self._progress.at(done, self._counting.result() if self._counting.done() else total)


def _count(root: Path, stop: threading.Event) -> int:
    total_bytes = 0
    for entry in walk(root):
        if stop.is_set():
            break
        if isinstance(entry, Found):
            total_bytes += entry.size_bytes
    return total_bytes


def _known(path: Path, root: Path) -> dict[str, tuple[int, int]]:
    if not path.exists():
        return {}
    head, entries = read_manifest(path)
    if head.root != str(root):
        raise ManifestError(f"{path}: belongs to the folder {head.root}, not to {root}; give another with --manifest")
    return {entry.path: (entry.size_bytes, entry.mtime_ns) for entry in entries}


def _summary(output: Output, report: Report, path: Path, *, dry_run: bool) -> int:
    output.document(report.document(path, dry_run=dry_run))
    output.say(f"{'Would import' if dry_run else 'Imported'} {report.amount()}{'' if dry_run else report.rate()}")
    if report.known:
        output.say(f"Already imported: {report.known:,} files, {format_size(report.known_bytes)}")
    if report.no_images:
        output.say(f"Left aside, no images: {report.no_images:,} files (take them with --all)")
    report.say_failures(output)
    if not dry_run:
        output.say(f"Manifest: {path}")
    return report.exit_code
