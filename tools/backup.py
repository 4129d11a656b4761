"""``haystack directory backup``: a consistent copy of a running Directory's data, in one file."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import aiohttp
import click
import xxhash
from yarl import URL

from haystack.client.errors import UnexpectedAnswer, Unreachable, WrongContent, error_for
from haystack.errors import ConfigError
from haystack.json_calls import CONNECTION_ERRORS, in_words, read_limited, reason_given, signed_headers
from haystack.units import format_size
from tools.app import App, cluster_options, pass_app
from tools.control import HOW_TO_SIGN, UNSIGNED
from tools.output import Output

PATH = "/internal/backup"
CHECKSUM_HEADER = "X-Haystack-Checksum"
CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 600.0
"""A Directory makes the whole copy before it sends the first byte."""

MAX_ERROR_BYTES = 64 * 1024


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Replace FILE when it is there.")
@cluster_options
@pass_app
def backup(app: App, file: Path, force: bool) -> None:
    """Write a consistent copy of a running Directory's data into FILE, and verify it.

    Uploads go on meanwhile. FILE appears whole or not at all. To go back to it: put it as directory.lmdb into an empty
    folder, and start the Directory with that; photos of later are then told by the Stores.
    """
    if file.exists() and not force:
        raise ConfigError(f"{file}: is there already; give another name, or --force to replace it")
    document = asyncio.run(_backup(app, file))
    app.output.document(document)
    app.output.say(f"{file}: {format_size(document['bytes'])}, checksum {document['checksum']}, verified.")


async def _backup(app: App, file: Path) -> dict[str, Any]:
    url = URL(f"{app.directory_url()}{PATH}")
    secret = app.secret()
    headers = signed_headers(secret, "GET", url, b"")
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
    temporary = file.with_name(f".{file.name}.part")
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session,
            session.get(url, headers=headers, allow_redirects=False) as response,
        ):
            if response.status != 200:
                await _refused(response, secret)
            checksum = await _receive(response, temporary, app.output)
    except CONNECTION_ERRORS as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise Unreachable(f"GET {url}: {in_words(error, SILENCE_SECONDS)}") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    size_bytes = temporary.stat().st_size
    await asyncio.to_thread(_publish, temporary, file)
    return {"file": str(file), "bytes": size_bytes, "checksum": checksum, "directory": app.directory_url()}


async def _refused(response: aiohttp.ClientResponse, secret: bytes | None) -> None:
    if response.status == UNSIGNED and secret is None:
        raise ConfigError(f"{response.url}: {HOW_TO_SIGN}")
    reason = reason_given(await read_limited(response, MAX_ERROR_BYTES), response.status)
    raise error_for(response.status, f"GET {response.url}: {reason}")


async def _receive(response: aiohttp.ClientResponse, path: Path, output: Output) -> str:
    """Write the body into a file; return its checksum. Raises WrongContent, and any of CONNECTION_ERRORS."""
    expected = response.headers.get(CHECKSUM_HEADER, "").lower()
    if not expected:
        raise UnexpectedAnswer(f"GET {response.url}: the answer has no {CHECKSUM_HEADER}; is the Directory up to date?")
    hasher = xxhash.xxh3_64()
    with path.open("wb") as file, output.progress("Backup", response.content_length, "bytes") as bar:
        async for piece in response.content.iter_chunked(1024 * 1024):
            hasher.update(piece)
            await asyncio.to_thread(file.write, piece)
            bar.advance(len(piece))
        file.flush()
        await asyncio.to_thread(os.fsync, file.fileno())
    if hasher.hexdigest() != expected:
        raise WrongContent(
            f"GET {response.url}: the copy has the checksum {hasher.hexdigest()} where {expected} was announced; "
            "nothing was kept, try again"
        )
    return expected


def _publish(temporary: Path, file: Path) -> None:
    temporary.replace(file)
    descriptor = os.open(file.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
