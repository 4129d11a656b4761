"""``haystack get``: fetch one photo, to standard output or into a file."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import click

from haystack.client import PhotoInfo, PhotoStream, parse_photo_name
from tools.app import App, cluster_options, pass_app
from tools.connect import connect, run_async
from tools.files import FileExists, NewFile, safe_name, write_pieces


@click.command()
@click.argument("name", metavar="FID|LOCATOR|PHOTO-ID")
@click.option("-o", "--output", "target", metavar="FILE|DIR", type=click.Path(), help="Where to [default: stdout].")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@cluster_options
@pass_app
def get(app: App, name: str, target: str | None, force: bool) -> None:
    """Fetch a photo. Its URL will do, too.

    With -o DIR the file gets the name that was stored with the photo. A file appears whole or not at all, and replaces
    no other without --force.
    """
    parse_photo_name(name)
    if target is None and app.output.json_mode:
        raise click.UsageError("--json needs -o: standard output cannot hold both the photo and the JSON")
    if target is None and sys.stdout.isatty():
        raise click.UsageError("a photo is no text for a terminal; give -o FILE, or send standard output elsewhere")
    path = Path(target) if target is not None else None
    into_folder = path is not None and path.is_dir()
    # Before anything is fetched, if the file's name is known already.
    if path is not None and not into_folder and not force and os.path.lexists(path):
        raise FileExists(f"{path}: exists already and was left as it is; give --force to replace it")
    run_async(_get(app, name, path, into_folder, force))


async def _get(app: App, name: str, path: Path | None, into_folder: bool, force: bool) -> None:
    async with connect(app) as client:
        async with client.stream(name) as photo:
            if path is None:
                await _to_stdout(photo)
                return
            if into_folder:
                path = path / _file_name(photo.info)
            size_bytes = await _to_file(photo, path, force)
        app.output.document({"fid": photo.info.fid, "file": str(path), "size": size_bytes, "mime": photo.info.mime})
        app.output.say(str(path))


async def _to_stdout(photo: PhotoStream) -> None:
    async for piece in photo:
        await asyncio.to_thread(sys.stdout.buffer.write, piece)
    await asyncio.to_thread(sys.stdout.buffer.flush)


async def _to_file(photo: PhotoStream, path: Path, force: bool) -> int:
    with await asyncio.to_thread(NewFile, path.parent) as file:
        await write_pieces(file, photo)
        await asyncio.to_thread(file.place, path, force=force)
        return file.size_bytes


def _file_name(info: PhotoInfo) -> str:
    return safe_name(info.name, info.fid.replace(",", "_"))
