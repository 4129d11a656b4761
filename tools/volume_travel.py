"""``haystack volume export`` and ``import``: one volume as a file, out of a cluster and into one."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import click
from yarl import URL

from haystack.client.errors import Unreachable, error_for
from haystack.errors import ConfigError, FolderError, InvalidRequest, VolumeExists, VolumeNotFound
from haystack.json_calls import in_words, parsed, reason_given, signed_headers
from haystack.units import format_size
from tools.app import EXIT_FAILED, App, cluster_options, pass_app
from tools.control import Control
from tools.output import Progress
from tools.plans import NOTHING_CHANGED, apply_option
from tools.view import ClusterView, StoreView, parse_cluster

PIECE_BYTES = 512 * 1024
"""Sent at once; a Store takes less than a MiB."""

VERIFY_SILENCE_SECONDS = 24 * 3600.0
"""How long a Store may verify what came."""

ATTEMPTS = 5


@click.command("export")
@click.argument("number", metavar="VOLUME", type=click.IntRange(1, 2**32 - 1))
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@cluster_options
@pass_app
def export_volume(app: App, number: int, file: Path) -> int:
    """Write one volume into FILE as it is, every photo verified, while uploads go on.

    FILE is complete in itself: with `haystack volume import`, or as <id>.vol in a Store's data folder before its start,
    it is taken into use. An export that was interrupted goes on where it ended.
    """
    if file.exists():
        raise ConfigError(f"{file}: is there already; give another name, or remove it")
    document, damage = asyncio.run(_export(app, number, file))
    app.output.document(document)
    app.output.say(f"{file}: volume {number}, {format_size(document['sizeBytes'])}, verified.")
    for offset, size in damage:
        app.output.note(f"haystack: {size} bytes at offset {offset} are damaged on all Stores; they are as they were.")
    return EXIT_FAILED if damage else 0


@click.command("import")
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@click.option("--store", "store_name", metavar="NODE", help="Store that is to have it [default: most free space].")
@apply_option
@cluster_options
@pass_app
def import_volume(app: App, file: Path, store_name: str | None, apply_it: bool) -> int:
    """Bring a volume FILE into the cluster. Shows the plan; acts only with --apply.

    The Store verifies every photo before it takes the volume into use, and the Directory then knows its photos. The
    volume keeps its number: it is refused when the cluster has one of that number, unless it is this one, of a single
    copy, and its Store has lost it.
    """
    asyncio.run(_import(app, file, store_name, apply_it))
    return 0


async def _export(app: App, number: int, file: Path) -> tuple[dict[str, Any], list[tuple[int, int]]]:
    # Imported here: the engine brings LMDB and more, which other commands of `haystack volume` do not need.
    from tools.volume_fetch import OtherHistory, fetch
    from tools.volume_source import open_session, sources_of

    part = file.with_name(f"{file.name}.part")
    async with Control(app.directory_urls(), app.secret) as control, open_session() as session:
        view = parse_cluster(await control.directory("GET", "/dir/status"))
        sources = sources_of(session, view, view.volume(number), app.secret)
        extent = await sources[-1].extent(number)  # the primary's: it knows most
        with app.output.progress(str(file), extent.end, "bytes") as bar:

            async def take(size_bytes: int) -> None:
                bar.advance(size_bytes)

            try:
                fetched = await fetch(extent, sources, part, take)
            except OtherHistory:
                part.unlink()
                fetched = await fetch(extent, sources, part, take)
    # What an interrupted export had left may be more than all copies have now.
    os.truncate(part, extent.end)
    part.rename(file)
    document = {
        "file": str(file),
        "volume": number,
        "uuid": extent.uuid,
        "generation": extent.generation,
        "sizeBytes": extent.end,
        "damaged": [list(one) for one in fetched.damage],
    }
    return document, fetched.damage


async def _import(app: App, file: Path, store_name: str | None, apply_it: bool) -> None:
    volume, uuid, size_bytes = await asyncio.to_thread(_look_at, file)
    async with Control(app.directory_urls(), app.secret) as control:
        view = parse_cluster(await control.directory("GET", "/dir/status"))
        _require_unknown(view, volume, uuid)
        store = _choose(view, store_name)
        plan = f"Plan: volume {volume} ({format_size(size_bytes)}) to Store {store.url}."
        document = {"volume": volume, "uuid": uuid, "sizeBytes": size_bytes, "store": store.store_id}
        app.output.say(plan)
        if apply_it:
            with app.output.progress(str(file), size_bytes, "bytes") as bar:
                await _send(store, volume, file, size_bytes, app.secret(), bar)
            path = f"/admin/volumes/{volume}/import"
            await control.store(store.admin_url, "PUT", path, {"uuid": uuid}, timeout_seconds=VERIFY_SILENCE_SECONDS)
    app.output.document({**document, "applied": apply_it})
    if apply_it:
        app.output.say(f"Volume {volume} is in use on Store {store.url}.")
    else:
        app.output.note(NOTHING_CHANGED)


def _look_at(file: Path) -> tuple[int, str, int]:
    """Return number, uuid and size of a volume file. Raises FolderError."""
    from haystack.volume import Superblock
    from haystack.volume.layout import SUPERBLOCK_BYTES, LayoutError

    with file.open("rb") as opened:
        raw = opened.read(SUPERBLOCK_BYTES)
        size_bytes = os.fstat(opened.fileno()).st_size
    try:
        block = Superblock.unpack(raw)
    except LayoutError as error:
        raise FolderError(f"{file}: is no volume: {error}") from error
    return block.volume, str(UUID(bytes=block.uuid)), size_bytes


def _require_unknown(view: ClusterView, volume: int, uuid: str) -> None:
    """Raise VolumeExists unless the cluster has no volume of that number, or has lost this one."""
    try:
        known = view.volume(volume)
    except VolumeNotFound:
        return
    if str(known.document.get("uuid")) != uuid:
        raise VolumeExists(
            f"the cluster has another volume {volume}; photos are found by that number, so both cannot be"
        )
    stores = {member: view.store(member) for member in known.members}
    away = [member for member, store in stores.items() if store is None or store.state != "alive"]
    if known.copies == 1 and not away and known.document.get("generation") is None:
        return  # its Store is there without it: the Directory lets the file take its place
    if known.copies == 1 and away:
        raise VolumeExists(
            f"volume {volume} belongs to Store {view.address_of(away[0])}, which is away and may have it; start that "
            "Store, without the volume when that is lost, and import again"
        )
    raise VolumeExists(
        f"the cluster knows this volume {volume} already, on {', '.join(map(view.address_of, known.members))}; "
        "`haystack volume show` tells how it is"
    )


def _choose(view: ClusterView, name: str | None) -> StoreView:
    """Return the Store for a volume. Raises InvalidRequest."""
    alive = [one for one in view.stores if one.state == "alive"]
    if name is not None:
        found = [one for one in alive if name == one.url or one.store_id.startswith(name)]
        if len(found) != 1:
            raise InvalidRequest(f"--store {name}: {len(found)} Stores that are alive have that address or id")
        return found[0]
    free = [one for one in alive if one.mark == "none"]
    if not free:
        raise InvalidRequest("no Store is alive that takes new volumes; name one with --store")
    return max(free, key=lambda one: one.free_bytes)


async def _send(
    store: StoreView, volume: int, file: Path, size_bytes: int, secret: bytes | None, bar: Progress
) -> None:
    """Send the file piece by piece. Raises Unreachable, HaystackError as the Store says."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=60.0)
    base = f"http://{store.admin_url}/admin/volumes/{volume}/import"
    failures, position = 0, 0
    async with aiohttp.ClientSession(timeout=timeout) as session:
        with file.open("rb") as opened:
            while position < size_bytes:
                piece = await asyncio.to_thread(_read, opened.fileno(), position)
                url = URL(f"{base}?from={position}&bytes={size_bytes}")
                try:
                    position = await _piece(session, url, piece, secret)
                    failures = 0
                except Unreachable:
                    failures += 1
                    if failures == ATTEMPTS:
                        raise
                    await asyncio.sleep(failures)
                bar.at(position)


def _read(descriptor: int, position: int) -> bytes:
    return os.pread(descriptor, PIECE_BYTES, position)


async def _piece(session: aiohttp.ClientSession, url: URL, piece: bytes, secret: bytes | None) -> int:
    """Send a piece; returns where to go on."""
    try:
        async with session.post(url, data=piece, headers=signed_headers(secret, "POST", url, piece)) as answer:
            body = await answer.read()
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unreachable(f"POST {url}: {in_words(error)}") from error
    document = parsed(body)
    size = document.get("size") if isinstance(document, dict) else None
    if isinstance(size, int):
        return size  # also when it has more than was thought: an answer was lost
    raise error_for(answer.status, f"POST {url}: {reason_given(body, answer.status)}")
