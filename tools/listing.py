"""All live needles of volumes, as their Stores list them page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from haystack.client import UnexpectedAnswer, Unreachable
from haystack.client.transport import field_of
from haystack.errors import InvalidFid, VolumeNotFound, VolumeUnavailable
from haystack.fid import Fid
from tools.control import Control
from tools.exporter import ListedNeedle

PAGE_NEEDLES = 1000
STATUS = "/dir/status"


@dataclass(frozen=True, slots=True)
class ListedVolume:
    """A volume, and the admin addresses of the Stores that have it."""

    volume: int
    admin_urls: Sequence[str]


@dataclass(frozen=True, slots=True)
class Listing:
    """The needles of some volumes.

    Parameters
    ----------
    live_bytes: about what they have together.
    """

    control: Control
    cluster_id: str
    volumes: Sequence[ListedVolume]
    live_bytes: int

    @classmethod
    async def load(cls, control: Control, volume: int | None) -> Listing:
        """Ask the Directory for one volume, or for all. Raises VolumeNotFound, Unreachable, UnexpectedAnswer."""
        status = await control.directory("GET", STATUS)
        admin_urls = {
            field_of(one, "storeId", str, STATUS): field_of(one, "adminUrl", str, STATUS)
            for one in field_of(status, "Stores", list, STATUS)
        }
        records = [
            one
            for one in field_of(status, "Volumes", list, STATUS)
            if volume is None or field_of(one, "volume", int, STATUS) == volume
        ]
        if volume is not None and not records:
            raise VolumeNotFound(f"there is no volume {volume}; `haystack volume list` shows which there are")
        return cls(
            control,
            field_of(status, "ClusterId", str, STATUS),
            [_volume(one, admin_urls) for one in records],
            sum(field_of(one, "liveBytes", int, STATUS) for one in records),
        )

    async def needles(self) -> AsyncIterator[ListedNeedle]:
        """Yield every live needle. Raises VolumeUnavailable when no Store lists a volume, UnexpectedAnswer."""
        for volume in self.volumes:
            after: int | None = 0
            generation: object = None
            while after is not None:
                page = await self._page(volume, after, generation)
                generation = page.get("generation")
                where = f"needles of volume {volume.volume}"
                for one in field_of(page, "needles", list, where):
                    yield _needle(one, where)
                following = page.get("next")
                if following is not None and (type(following) is not int or following <= after):
                    raise UnexpectedAnswer(f"{where}: the page behind {after} goes on at {following!r}")
                after = following

    async def _page(self, volume: ListedVolume, after: int, generation: object) -> dict[str, Any]:
        """One page. Raises, also when the volume was compacted since the last one: then some would be missing."""
        failures = []
        same = f"&generation={generation}" if type(generation) is int else ""
        for admin_url in volume.admin_urls:
            path = f"/admin/volumes/{volume.volume}/needles?after={after}&limit={PAGE_NEEDLES}{same}"
            try:
                return await self.control.store(admin_url, "GET", path)
            except (Unreachable, VolumeUnavailable) as error:
                failures.append(str(error))
        reason = "; ".join(failures) or "no Store has it at the moment"
        raise VolumeUnavailable(f"volume {volume.volume} cannot be listed: {reason}")


def _volume(record: Mapping[str, Any], admin_urls: Mapping[str, str]) -> ListedVolume:
    holders = [field_of(record, "primary", str, STATUS), *field_of(record, "inSync", list, STATUS)]
    urls = [admin_urls[store] for store in dict.fromkeys(holders) if store in admin_urls]
    return ListedVolume(field_of(record, "volume", int, STATUS), urls)


def _needle(document: Any, where: str) -> ListedNeedle:
    if not isinstance(document, dict):
        raise UnexpectedAnswer(f"{where}: the answer lists something that is no needle")
    fid = field_of(document, "fid", str, where)
    try:
        Fid.parse(fid)
    except InvalidFid as error:
        raise UnexpectedAnswer(f"{where}: {error}") from error
    return ListedNeedle(
        fid,
        field_of(document, "size", int, where),
        field_of(document, "name", str, where),
        field_of(document, "mime", str, where),
        field_of(document, "timeMs", int, where),
    )
