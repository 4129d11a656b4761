"""``haystack stat``: what the cluster knows of a photo."""

from __future__ import annotations

from datetime import UTC

import click

from haystack.client import Location, PhotoInfo, parse_photo_name
from haystack.fid import Fid
from haystack.units import format_size
from tools.app import App, cluster_options, pass_app
from tools.connect import connect, run_async


@click.command()
@click.argument("name", metavar="FID|LOCATOR|PHOTO-ID")
@cluster_options
@pass_app
def stat(app: App, name: str) -> None:
    """Say what the cluster knows of a photo: name, type, size, time, and where it is."""
    parse_photo_name(name)
    run_async(_stat(app, name))


async def _stat(app: App, name: str) -> None:
    async with connect(app) as client:
        info = await client.stat(name)
        fid = Fid.parse(info.fid)
        locations = await client.lookup(fid.volume)
    _print(app, info, fid, locations)


def _print(app: App, info: PhotoInfo, fid: Fid, locations: tuple[Location, ...]) -> None:
    stored = info.modified.astimezone(UTC).isoformat() if info.modified else None
    expires = info.expires.astimezone(UTC).isoformat() if info.expires else None
    urls = [f"{one.base(internal=False)}/{fid}" for one in locations]
    app.output.document(
        {
            "fid": info.fid,
            "photo": f"{fid.key:x}",
            "alternate": fid.alternate,
            "volume": fid.volume,
            "name": info.name,
            "mime": info.mime,
            "size": info.size_bytes,
            "eTag": info.etag,
            "time": stored,
            "expires": expires,
            "urls": urls,
        }
    )
    lines = [
        ("fid", info.fid),
        ("photo", f"{fid.key:x}" + (f", rendition {fid.alternate}" if fid.alternate else "")),
        ("name", info.name or "-"),
        ("type", info.mime or "-"),
        ("size", f"{info.size_bytes} bytes ({format_size(info.size_bytes)})"),
        ("etag", info.etag),
        ("stored", stored or "-"),
        *([("expires", expires)] if expires else []),
        ("volume", str(fid.volume)),
        *(("url", url) for url in urls),
    ]
    for title, text in lines:
        app.output.say(f"{title:<9}{text}")
