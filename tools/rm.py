"""``haystack rm``: delete photos."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import click

from haystack.client import HaystackClient, PhotoInfo, parse_photo_name
from haystack.errors import HaystackError
from haystack.units import format_size
from tools.app import App, cluster_options, pass_app
from tools.connect import connect, run_async
from tools.output import Column

JOBS = 16


@dataclass(slots=True)
class Candidate:
    """One photo to delete: what is known of it, or why it cannot be."""

    name: str
    info: PhotoInfo | None = None
    error: str = ""
    deleted: bool = False


@click.command()
@click.argument("names", metavar="FID...", nargs=-1, required=True)
@click.option("--apply", is_flag=True, help="Delete; without it the plan is printed and nothing is changed.")
@cluster_options
@pass_app
def rm(app: App, names: Sequence[str], apply: bool) -> int:
    """Delete photos by fid, locator, photo id or URL. Prints what it would do; does it with --apply."""
    for name in names:
        parse_photo_name(name)
    return run_async(_rm(app, [Candidate(name) for name in dict.fromkeys(names)], apply))


async def _rm(app: App, candidates: Sequence[Candidate], apply: bool) -> int:
    async with connect(app, jobs=JOBS) as client:
        await _each(candidates, lambda one: _look(client, one))
    if apply:
        async with connect(app, jobs=JOBS, steady=True) as client:
            await _each([one for one in candidates if one.info], lambda one: _delete(client, one))
    _report(app, candidates, apply)
    return 1 if any(one.error for one in candidates) else 0


async def _each(candidates: Sequence[Candidate], work: Callable[[Candidate], Awaitable[None]]) -> None:
    slots = asyncio.Semaphore(JOBS)

    async def one_of(candidate: Candidate) -> None:
        async with slots:
            try:
                await work(candidate)
            except HaystackError as error:
                candidate.error = str(error)

    await asyncio.gather(*(one_of(candidate) for candidate in candidates))


async def _look(client: HaystackClient, candidate: Candidate) -> None:
    candidate.info = await client.stat(candidate.name)


async def _delete(client: HaystackClient, candidate: Candidate) -> None:
    assert candidate.info is not None
    await client.delete(candidate.info.fid)
    candidate.deleted = True


def _report(app: App, candidates: Sequence[Candidate], apply: bool) -> None:
    photos = [
        {
            "name": one.name,
            "fid": one.info.fid if one.info else None,
            "size": one.info.size_bytes if one.info else None,
            "deleted": one.deleted,
            "error": one.error or None,
        }
        for one in candidates
    ]
    app.output.document({"applied": apply, "photos": photos})
    rows = [
        (one.info.fid, format_size(one.info.size_bytes), one.info.name, "deleted" if one.deleted else "to delete")
        for one in candidates
        if one.info and not one.error
    ]
    if rows:
        app.output.table([Column("fid"), Column("size", right=True), Column("file name"), Column("")], rows)
    for one in candidates:
        if one.error:
            app.output.note(f"haystack: {one.name}: {one.error}")
    if rows and not apply:
        app.output.note("Nothing was changed; repeat it with --apply to delete.")
