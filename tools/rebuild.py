"""``haystack directory rebuild``: the Directory's data from the Stores alone, when its disk is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
import uvloop

from haystack.client.errors import UnexpectedAnswer
from haystack.units import format_duration
from tools.app import App, config_option, json_option, pass_app, secret_option, settings_options
from tools.control import Control
from tools.folders import require_empty
from tools.output import Output
from tools.roles import directory_settings

if TYPE_CHECKING:
    from directory.settings import DirectorySettings

POLL_SECONDS = 0.5
STEADY_POLLS = 4
"""How often the same must be seen before it is believed: a Store that has just come may bring more."""

REMIND_SECONDS = 30.0
STATUS = "/cluster/status"


@dataclass(frozen=True, slots=True)
class Progress:
    """How much of the cluster the new Directory knows."""

    stores: int
    volumes: int
    volumes_confirmed: int
    photos: int

    def complete(self, stores: int) -> bool:
        """Say whether so many Stores have told everything."""
        return self.stores >= stores and self.volumes_confirmed >= self.volumes

    def in_words(self, stores: int) -> str:
        """Say what is there and what is missing."""
        return (
            f"{self.stores} of {stores} Stores have registered; all photos are told of {self.volumes_confirmed} of "
            f"{self.volumes} volumes; {self.photos:,} photos so far"
        )


@click.command()
@click.option(
    "--stores",
    type=click.IntRange(1, 100_000),
    required=True,
    help="How many Stores there are: rebuilding is over when all of them have told all they have.",
)
@settings_options("directory")
@secret_option
@config_option
@json_option
@pass_app
def rebuild(app: App, /, stores: int, **flags: object) -> None:
    """Make the Directory's data anew from the Stores alone, when its disk is lost and there is no backup.

    Give --data an empty folder, and host and port as the lost Directory had them: the Stores come by themselves and
    tell their volumes and photos. Photos can be read and stored meanwhile. When all Stores have told everything, the
    result is printed and this ends; then start the Directory as usual with the same folder.

    Started again after an interruption it needs an empty folder again, or simply start the Directory: the Stores go on
    telling what it does not know.
    """
    # The Directory grumbles about what is missing until all Stores are there; the progress says it better.
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    settings = directory_settings(app.configuration().with_flags("directory", flags))
    require_empty(settings.data, "rebuilding begins")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        progress, seconds = runner.run(_rebuild(app, settings, stores))
    app.output.document(
        {
            "data": str(settings.data),
            "stores": progress.stores,
            "volumes": progress.volumes,
            "photos": progress.photos,
            "seconds": round(seconds, 3),
        }
    )
    app.output.say(
        f"Rebuilt in {format_duration(seconds)}: {progress.stores} Stores, {progress.volumes} volumes, "
        f"{progress.photos:,} photos. Now start the Directory as usual, with --data {settings.data}"
    )


async def _rebuild(app: App, settings: DirectorySettings, stores: int) -> tuple[Progress, float]:
    # Imported here: only this command of the file needs the Directory's code.
    from directory.server import serve

    loop = asyncio.get_running_loop()
    begun_seconds = loop.time()
    async with serve(settings) as address, Control([address], lambda: settings.secret) as control:
        app.output.note(f"Listening on {address} for {stores} Stores. Ctrl-C ends it.")
        progress = await watch(control, app.output, stores, clock=loop.time)
    return progress, loop.time() - begun_seconds


async def watch(control: Control, output: Output, stores: int, *, clock: Callable[[], float]) -> Progress:
    """Return when so many Stores have told everything; say meanwhile how far it is."""
    seen: list[Progress] = []
    told: Progress | None = None
    remind_seconds = clock() + REMIND_SECONDS
    with output.progress("Photos", None) as bar:
        while True:
            now = parse_progress(await control.directory("GET", STATUS))
            bar.at(now.photos)
            seen = [*seen[1 - STEADY_POLLS :], now]
            if len(seen) == STEADY_POLLS and now.complete(stores) and len(set(seen)) == 1:
                return now
            if told is None or now.stores != told.stores or clock() >= remind_seconds:
                output.note(now.in_words(stores))
                told, remind_seconds = now, clock() + REMIND_SECONDS
            await asyncio.sleep(POLL_SECONDS)


def parse_progress(document: dict[str, Any]) -> Progress:
    """Read the document of ``/cluster/status``. Raises UnexpectedAnswer."""
    try:
        counts, confirmed = document["Counts"], document["Confirmed"]
        return Progress(
            stores=int(confirmed["stores"]),
            volumes=int(confirmed["volumes"]),
            volumes_confirmed=int(confirmed["volumesConfirmed"]),
            photos=int(counts["photos"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UnexpectedAnswer(f"{STATUS}: the answer is not understood ({type(error).__name__}: {error})") from error
