"""``haystack rm`` and ``haystack undelete``: delete photos, and bring them back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import click

from haystack.client import HaystackClient, PhotoInfo, parse_photo_name
from haystack.client.names import fid_of
from haystack.errors import HaystackError, InvalidRequest, NeedleNotFound
from haystack.units import format_size
from tools.app import App, cluster_options, pass_app
from tools.connect import connect, run_async
from tools.output import Column

JOBS = 16


@dataclass(slots=True)
class Candidate:
    """One photo to delete or to bring back: what is known of it, or why it cannot be."""

    name: str
    info: PhotoInfo | None = None
    error: str = ""
    done: bool = False
    fid: str = ""
    size_bytes: int | None = None


@click.command()
@click.argument("names", metavar="FID...", nargs=-1, required=True)
@click.option("--now", is_flag=True, help="Delete for good: they cannot be brought back; also what is in the trash.")
@click.option("--apply", is_flag=True, help="Delete; without it the plan is printed and nothing is changed.")
@cluster_options
@pass_app
def rm(app: App, names: Sequence[str], now: bool, apply: bool) -> int:
    """Delete photos by fid, locator, photo id or URL. Prints what it would do; does it with --apply.

    Until the trash's retention has passed, `haystack undelete` brings them back.
    """
    return run_async(_rm(app, _candidates(names), now, apply))


@click.command()
@click.argument("names", metavar="FID...", nargs=-1, required=True)
@cluster_options
@pass_app
def undelete(app: App, names: Sequence[str]) -> int:
    """Bring deleted photos back by fid, locator or URL, as long as they are in the trash."""
    return run_async(_undelete_all(app, _candidates(names)))


def _candidates(names: Sequence[str]) -> list[Candidate]:
    for name in names:
        parse_photo_name(name)
    return [Candidate(name) for name in dict.fromkeys(names)]


async def _rm(app: App, candidates: Sequence[Candidate], now: bool, apply: bool) -> int:
    async with connect(app, jobs=JOBS) as client:
        await _each(candidates, lambda one: _look(client, one, now))
    if apply:
        async with connect(app, jobs=JOBS, steady=True) as client:
            await _each([one for one in candidates if one.fid], lambda one: _delete(client, one, now))
    _report(app, candidates, apply)
    return 1 if any(one.error for one in candidates) else 0


async def _undelete_all(app: App, candidates: Sequence[Candidate]) -> int:
    async with connect(app, jobs=JOBS, steady=True) as client:
        await _each(candidates, lambda one: _undelete(client, one))
    app.output.document({"photos": [_document(one, "undeleted") for one in candidates]})
    _table(app, candidates, "brought back")
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


async def _look(client: HaystackClient, candidate: Candidate, now: bool) -> None:
    try:
        await _describe(client, candidate)
    except NeedleNotFound:
        name = parse_photo_name(candidate.name)
        if not now or isinstance(name, int):
            raise
        candidate.fid = str(fid_of(name))  # it may be in the trash


async def _describe(client: HaystackClient, candidate: Candidate) -> None:
    candidate.info = await client.stat(candidate.fid or candidate.name)
    candidate.fid, candidate.size_bytes = candidate.info.fid, candidate.info.size_bytes


async def _delete(client: HaystackClient, candidate: Candidate, now: bool) -> None:
    size_bytes = await client.delete(candidate.fid, now=now)
    candidate.size_bytes = candidate.size_bytes if candidate.info else size_bytes
    candidate.done = True


async def _undelete(client: HaystackClient, candidate: Candidate) -> None:
    name = parse_photo_name(candidate.name)
    if isinstance(name, int):
        raise InvalidRequest("a deleted photo has no entry in the Directory: name it by its fid")
    candidate.size_bytes = await client.undelete(name)
    candidate.fid, candidate.done = str(fid_of(name)), True


def _report(app: App, candidates: Sequence[Candidate], apply: bool) -> None:
    app.output.document({"applied": apply, "photos": [_document(one, "deleted") for one in candidates]})
    shown = _table(app, candidates, "deleted")
    if shown and not apply:
        app.output.note("Nothing was changed; repeat it with --apply to delete.")


def _document(one: Candidate, done: str) -> dict[str, object]:
    return {
        "name": one.name,
        "fid": one.fid or None,
        "size": one.size_bytes,
        done: one.done,
        "error": one.error or None,
    }


def _table(app: App, candidates: Sequence[Candidate], done: str) -> bool:
    """Show what was found, then what went wrong; returns whether anything was found."""
    rows = [
        (
            one.fid,
            "-" if one.size_bytes is None else format_size(one.size_bytes),
            one.info.name if one.info else "",
            done if one.done else "to delete" if one.info else "to delete, if it is in the trash",
        )
        for one in candidates
        if one.fid and not one.error
    ]
    if rows:
        app.output.table([Column("fid"), Column("size", right=True), Column("file name"), Column("")], rows)
    for one in candidates:
        if one.error:
            app.output.note(f"haystack: {one.name}: {one.error}")
    return bool(rows)
