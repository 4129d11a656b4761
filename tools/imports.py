"""``haystack import``: bring a folder of photos into the cluster."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from frontend.visibility import Visibility
from haystack.client import UnexpectedAnswer
from haystack.units import format_size
from tools.app import App, cluster_options, pass_app, replication_option, ttl_option
from tools.connect import MAX_JOBS, connect, run_async
from tools.importer import Importer, Uploader, imported, uploader
from tools.manifest import Head, Manifest, ManifestError, read_manifest
from tools.output import Output, Progress
from tools.report import Report
from tools.site_imports import (
    DEFAULT_SITE_URL,
    SITE_JOBS,
    TAKEN_TYPES,
    TOKEN_VARIABLE,
    SiteOptions,
    read_token,
    site_manifest,
)
from tools.walk import Found, walk

DEFAULT_JOBS = 32
MANIFEST_SUFFIX = ".haystack-manifest.jsonl"


@click.command("import")
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--jobs",
    type=click.IntRange(1, MAX_JOBS),
    help=f"Files at a time [default: {DEFAULT_JOBS}; with --as {SITE_JOBS}].",
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
@click.option("--as", "username", metavar="USERNAME", help="Bring them to the photo service, as this user's photos.")
@click.option(
    "--site",
    metavar="URL",
    help=f"With --as: address of the photo service [default: {DEFAULT_SITE_URL}, or that of --data].",
)
@click.option(
    "--token-file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"With --as: file with an API token of the user [default: {TOKEN_VARIABLE}, or it is asked for].",
)
@click.option("--tags", metavar="A,B", default="", help="With --as: tags of all photos.")
@click.option(
    "--visibility",
    type=click.Choice([one.word for one in Visibility]),
    default=Visibility.PUBLIC.word,
    help="With --as: who may see them [default: public].",
)
@click.option("--drop-place", is_flag=True, help="With --as: forget where photos were taken.")
@cluster_options
@pass_app
def import_(
    app: App,
    /,
    folder: Path,
    jobs: int | None,
    all_files: bool,
    manifest_path: Path | None,
    dry_run: bool,
    username: str | None,
    **more: Any,
) -> int:
    """Store all photos below DIR; or, with --as, make them somebody's photos on the photo service.

    Images are told by their content; the rest is left aside, unless --all. Every stored file is noted in the manifest
    with its fid, so that an import that was interrupted goes on where it was, and a second one takes new and changed
    files only. Symbolic links to folders are not followed.

    With --as, photos go straight to the storage machines, which read dates and places from their EXIF; titles are
    made of file names, as far as a camera has not made those.
    """
    root = folder.resolve()
    path = (manifest_path or default_manifest(root, username)).resolve()
    asked = _Asked(root, path, jobs or (DEFAULT_JOBS if username is None else SITE_JOBS), all_files)
    if username is None:
        _refuse(more, "--as USERNAME is missing", SITE_OPTIONS)
        if dry_run:
            return run_async(_dry_run(app, asked, str(root)))
        return run_async(_import(app, asked, more["replication"], more["ttl"]))
    _refuse(more, "the photo service decides on that, not --as", ("replication", "ttl"))
    options = _site_options(app, username, more)
    if dry_run:
        return run_async(_dry_run(app, asked, str(root), TAKEN_TYPES))
    return run_async(_import_as(app, asked, options, read_token(options, app.output)))


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked of any import."""

    root: Path
    manifest: Path
    jobs: int
    all_files: bool

    def importer(
        self,
        done: dict[str, tuple[int, int]],
        upload: Uploader | None,
        progress: Progress,
        types: frozenset[str] | None = None,
    ) -> Importer:
        return Importer(self.root, done, upload, self.jobs, self.all_files, progress, self.manifest, types)


SITE_OPTIONS = ("site", "token_file", "tags", "drop_place")


def _refuse(given: dict[str, Any], reason: str, names: Sequence[str]) -> None:
    for name in names:
        if given[name]:
            raise click.UsageError(f"--{name.replace('_', '-')}: {reason}")


def _site_options(app: App, username: str, given: dict[str, Any]) -> SiteOptions:
    url = given["site"] or app.running_address("frontend") or DEFAULT_SITE_URL
    return SiteOptions(
        username=username.lstrip("@"),
        url=url.rstrip("/") if "://" in url else f"http://{url.rstrip('/')}",
        token_file=given["token_file"],
        tags=tuple(tag for tag in re.split(r"[,\s]+", given["tags"]) if tag),
        visibility=given["visibility"],
        drop_place=given["drop_place"],
    )


async def _import_as(app: App, asked: _Asked, options: SiteOptions, token: str) -> int:
    async with site_manifest(app.output, options, token, asked.root, asked.manifest) as (manifest, upload):
        done = await asyncio.to_thread(imported, manifest)
        with app.output.progress("Importing", None, "bytes") as progress:
            report = await _watched(app.output, asked.importer(done, upload, progress, TAKEN_TYPES))
    return _summary(app.output, report, asked.manifest, dry_run=False)


def default_manifest(root: Path, username: str | None = None) -> Path:
    """Return where the manifest of a folder is: beside it, so that the folder itself is only read."""
    suffix = MANIFEST_SUFFIX if username is None else f".{username.lstrip('@')}{MANIFEST_SUFFIX}"
    return root.with_name(root.name + suffix) if root.name else root / f"root{suffix}"


async def _import(app: App, asked: _Asked, replication: str | None, ttl: str) -> int:
    head = Head(str(asked.root), await _cluster_id(app))
    async with connect(app, jobs=asked.jobs, patient=True) as client, Manifest(asked.manifest, head) as manifest:
        done = await asyncio.to_thread(imported, manifest)
        with app.output.progress("Importing", None, "bytes") as progress:
            upload = uploader(client, manifest, replication=replication, ttl=ttl)
            report = await _watched(app.output, asked.importer(done, upload, progress))
    return _summary(app.output, report, asked.manifest, dry_run=False)


async def _cluster_id(app: App) -> str:
    async with connect(app) as client:
        cluster_id = (await client.cluster_status()).get("ClusterId")
    if not isinstance(cluster_id, str):
        raise UnexpectedAnswer(f"{app.directory_url()}/cluster/status: the answer has no text 'ClusterId'")
    return cluster_id


async def _dry_run(app: App, asked: _Asked, root: str, types: frozenset[str] | None = None) -> int:
    done = await asyncio.to_thread(_known, asked.manifest, root)
    with app.output.progress("Looking", None, "bytes") as progress:
        report = await _watched(app.output, asked.importer(done, None, progress, types))
    return _summary(app.output, report, asked.manifest, dry_run=True)


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


def _known(path: Path, root: str) -> dict[str, tuple[int, int]]:
    if not path.exists():
        return {}
    head, entries = read_manifest(path)
    if head.root != root:
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
