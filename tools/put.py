"""``haystack put``: store files, and say under which names."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from haystack.client import FileSource, HaystackClient, IteratorSource, StoredPhoto
from haystack.errors import HaystackError
from haystack.lifetime import end_tasks
from tools.app import App, cluster_options, pass_app, replication_option, ttl_option
from tools.connect import check_reachable, connect, run_async
from tools.images import DEFAULT_TYPE, upload_type
from tools.report import reason_of

JOBS = 8
STDIN = "-"
STDIN_PIECE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Upload:
    """One file to store; empty texts mean: find out."""

    file: str
    name: str
    mime: str
    replication: str | None
    ttl: str


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@click.option("--name", default="", help="Name to keep with the photo [default: the file's].")
@click.option("--mime", default="", help="MIME type to keep [default: by content, else by name].")
@replication_option
@ttl_option
@cluster_options
@pass_app
def put(app: App, files: Sequence[str], name: str, mime: str, replication: str | None, ttl: str) -> int:
    """Store each FILE and print its fid and URL; - is standard input."""
    if (name or files.count(STDIN)) and len(files) > 1:
        raise click.UsageError("--name and - (standard input) go with one FILE only")
    return run_async(put_all(app, [Upload(file, name, mime, replication, ttl) for file in files]))


async def put_all(app: App, uploads: Sequence[Upload]) -> int:
    """Store all, print each in its turn, and return the exit code."""
    slots = asyncio.Semaphore(JOBS)
    stored: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    await check_reachable(app)
    async with connect(app, jobs=JOBS, steady=True) as client:
        tasks = [asyncio.create_task(_put(client, upload, slots)) for upload in uploads]
        try:
            for upload, task in zip(uploads, tasks, strict=True):
                try:
                    photo = await task
                except (HaystackError, OSError) as error:
                    failed.append({"file": upload.file, "error": reason_of(error)})
                    app.output.note(f"haystack: {upload.file}: {reason_of(error)}")
                    continue
                stored.append(_document(upload, photo))
                app.output.say(f"{photo.fid}  {photo.url}")
        finally:
            await end_tasks(tasks)
    app.output.document({"stored": stored, "failed": failed})
    return 1 if failed else 0


async def _put(client: HaystackClient, upload: Upload, slots: asyncio.Semaphore) -> StoredPhoto:
    async with slots:
        if upload.file == STDIN:
            return await client.upload(
                IteratorSource(_stdin()),
                name=upload.name,
                mime=upload.mime or DEFAULT_TYPE,
                replication=upload.replication,
                ttl=upload.ttl,
            )
        path = Path(upload.file)
        async with FileSource(path) as source:
            name = upload.name or path.name
            mime = upload.mime or upload_type(source.head, name)
            return await client.upload(source, name=name, mime=mime, replication=upload.replication, ttl=upload.ttl)


async def _stdin() -> AsyncIterator[bytes]:
    while data := await asyncio.to_thread(sys.stdin.buffer.read, STDIN_PIECE_BYTES):
        yield data


def _document(upload: Upload, photo: StoredPhoto) -> dict[str, Any]:
    return {
        "file": upload.file,
        "fid": photo.fid,
        "url": photo.url,
        "locator": photo.locator,
        "size": photo.size_bytes,
        "eTag": photo.etag,
    }
