"""``haystack cache stats``, ``purge`` and ``warm``: looking after the Caches."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import click

from haystack.client.caches import CacheList
from haystack.client.caches import parse_caches as parse_nodes
from haystack.client.names import fid_of, parse_photo_name
from haystack.errors import HaystackError, InvalidRequest, VolumeUnavailable
from haystack.fid import MAX_VOLUME_ID, Fid
from tools.app import EXIT_FAILED, App, cluster_options, pass_app
from tools.caches import COLUMNS, CacheView, parse_caches, row, ssd_line
from tools.control import Control
from tools.output import Output
from tools.plans import NOTHING_CHANGED, apply_option

WARM_BATCH = 50
"""Photos that a Cache is asked to fetch with one call."""

WARM_SILENCE_SECONDS = 60.0
MAX_WARMED = 10_000


@click.command()
@cluster_options
@pass_app
def stats(app: App) -> int:
    """Show what the Caches hold, how often that serves, and what their fetches take; all since their start.

    The exit code is 1 when there is no Cache, or one is silent.
    """
    views, details = asyncio.run(_stats(app))
    app.output.document({"caches": [{**view.document, "details": details.get(view.cache_id)} for view in views]})
    if not views:
        app.output.say("There is no Cache. Start one: haystack cache --data DIR --directory URL")
        return EXIT_FAILED
    app.output.table(COLUMNS, [row(view) for view in views])
    for view in views:
        if (detail := details.get(view.cache_id)) is not None and not detail.get("vouched", True):
            app.output.say(f"{view.url}: follows no Directory at the moment, and asks Stores about what it holds.")
        if detail is not None and detail.get("ssd"):
            app.output.say(f"{view.url}: {ssd_line(detail.get('counters') or view.counters, detail['ssd'])}")
    return 0 if all(view.alive for view in views) else EXIT_FAILED


async def _stats(app: App) -> tuple[Sequence[CacheView], Mapping[str, Mapping[str, Any]]]:
    async with Control(app.directory_urls(), app.secret) as control:
        views = await ask_caches(control)
        living = [view for view in views if view.alive]
        answers = await asyncio.gather(*(_details(control, view) for view in living))
        return views, {view.cache_id: answer for view, answer in zip(living, answers, strict=True) if answer}


async def ask_caches(control: Control) -> tuple[CacheView, ...]:
    """Return all Caches that the Directory knows. Raises as Control does."""
    return parse_caches(await control.directory("GET", "/cluster/status"))


async def _details(control: Control, view: CacheView) -> Mapping[str, Any] | None:
    try:
        return await control.store(view.admin_url, "GET", "/admin/cache")
    except HaystackError:
        return None  # what the Directory knows is shown all the same; without the secret there is no more


# -- purge


@click.command()
@click.argument("names", metavar="[FID]...", nargs=-1)
@click.option(
    "--volume",
    "volumes",
    metavar="N",
    type=click.IntRange(1, MAX_VOLUME_ID),
    multiple=True,
    help="All photos of a volume; may be repeated.",
)
@click.option("--all", "everything", is_flag=True, help="All photos.")
@apply_option
@cluster_options
@pass_app
def purge(app: App, names: tuple[str, ...], volumes: tuple[int, ...], everything: bool, apply_it: bool) -> int | None:
    """Drop photos from all Caches; they are fetched again when somebody asks for them.

    Deleted and replaced photos leave the Caches by themselves. This is for what went wrong in spite of that.
    """
    if sum(map(bool, (names, volumes, everything))) != 1:
        raise click.UsageError("give FIDs, or --volume, or --all")
    request: dict[str, object] = {"fids": [_fid(name) for name in names]}
    words = _counted(len(names), "photo")
    if volumes:
        request, words = {"volumes": list(volumes)}, f"all photos of volumes {', '.join(map(str, volumes))}"
    if everything:
        request, words = {"all": True}, "all photos"
    return asyncio.run(_purge(app, request, words, apply_it))


async def _purge(app: App, request: Mapping[str, object], words: str, apply_it: bool) -> int | None:
    async with Control(app.directory_urls(), app.secret) as control:
        views = await ask_caches(control)
        living = [view for view in views if view.alive]
        outcomes: list[int | str] = []
        if apply_it:
            outcomes = await asyncio.gather(*(_purge_one(control, view, request) for view in living))
    done = dict(zip((view.url for view in living), outcomes, strict=False))
    app.output.document(
        {"request": request, "caches": [view.url for view in living], "applied": apply_it, "purged": done}
    )
    app.output.say(f"Drop {words} from {_counted(len(living), 'Cache')}:")
    for view in living:
        outcome = done.get(view.url)
        told = "" if outcome is None else f": {outcome:,} dropped" if isinstance(outcome, int) else f": {outcome}"
        app.output.say(f"  {view.url}{told}")
    for view in views:
        if not view.alive:
            app.output.note(f"haystack: {view.url} is silent and was left out; it starts empty if it was stopped.")
    if not apply_it:
        app.output.note(NOTHING_CHANGED)
    return EXIT_FAILED if any(isinstance(one, str) for one in outcomes) else None


async def _purge_one(control: Control, view: CacheView, request: Mapping[str, object]) -> int | str:
    try:
        answer = await control.store(view.admin_url, "POST", "/admin/cache/purge", request)
    except HaystackError as error:
        return str(error)
    return int(answer.get("purged", 0))


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _fid(name: str) -> str:
    parsed = parse_photo_name(name)
    if isinstance(parsed, int):
        raise InvalidRequest(f"{name}: give the fid of the photo; Caches do not know photos by their id alone")
    return str(fid_of(parsed))


# -- warm


@click.command()
@click.argument("names", metavar="[FID]...", nargs=-1)
@click.option(
    "--count",
    type=click.IntRange(1, MAX_WARMED),
    default=1000,
    show_default=True,
    help="How many of the hottest photos.",
)
@cluster_options
@pass_app
def warm(app: App, names: tuple[str, ...], count: int) -> int | None:
    """Have the Caches fetch photos before anybody asks: the FIDs, or the photos that are read most now.

    Each photo goes to the Cache that it belongs to.
    """
    return asyncio.run(_warm(app, [_fid(name) for name in names], count))


async def _warm(app: App, fids: list[str], count: int) -> int | None:
    async with Control(app.directory_urls(), app.secret) as control:
        if not fids:
            answer = await control.directory("GET", "/internal/cache/hottest", {"count": count}, signed=True)
            fids = [str(one) for one in answer.get("fids", ())][:count]
        shares = share_out(fids, parse_nodes(await control.directory("GET", "/dir/caches")))
        # Asked for second: it names those that have come since, and those that are silent.
        views = {view.cache_id: view for view in await ask_caches(control)}
        if not shares:
            raise VolumeUnavailable("there is no Cache that could be warmed; start one: haystack cache --data DIR")
        with app.output.progress("Warming", len(fids)) as progress:
            found = await asyncio.gather(
                *(_warm_one(control, views.get(one), share, progress.advance) for one, share in shares.items())
            )
    told = {views[one].url if one in views else one: outcome for one, outcome in zip(shares, found, strict=True)}
    app.output.document({"photos": len(fids), "caches": told})
    _say_warmed(app.output, told)
    return EXIT_FAILED if any(one["failed"] or one["error"] for one in told.values()) else None


def share_out(fids: Sequence[str], caches: CacheList) -> dict[str, list[str]]:
    """Return by Cache id the photos that belong to it; nothing without any Cache."""
    shares: defaultdict[str, list[str]] = defaultdict(list)
    for node in caches.nodes:
        shares[node.id] = []
    for fid in fids:
        for node in caches.of_photo(Fid.parse(fid).key, lambda: 0.0)[:1]:
            shares[node.id].append(fid)
    return dict(shares)


async def _warm_one(control: Control, view: CacheView | None, fids: Sequence[str], advance: Any) -> dict[str, Any]:
    told: dict[str, Any] = {"fetched": 0, "present": 0, "failed": 0, "error": ""}
    if view is None:
        return {**told, "failed": len(fids), "error": "this Cache has gone meanwhile; warm again"}
    for start in range(0, len(fids), WARM_BATCH):
        batch = fids[start : start + WARM_BATCH]
        try:
            answer = await control.store(
                view.admin_url, "POST", "/admin/cache/warm", {"fids": batch}, timeout_seconds=WARM_SILENCE_SECONDS
            )
        except HaystackError as error:
            return {**told, "failed": told["failed"] + len(fids) - start, "error": str(error)}
        for name in ("fetched", "present", "failed"):
            told[name] += int(answer.get(name, 0))
        advance(len(batch))
    return told


def _say_warmed(output: Output, told: Mapping[str, Mapping[str, Any]]) -> None:
    if not any(sum(one[what] for what in ("fetched", "present", "failed")) for one in told.values()):
        output.note("haystack: no photo is read often enough yet for Stores to have told of it; nothing to warm.")
    for url, one in told.items():
        output.say(f"{url}: {one['fetched']:,} fetched, {one['present']:,} were there, {one['failed']:,} failed")
        if one["error"]:
            output.note(f"haystack: {one['error']}")
