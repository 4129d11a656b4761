"""``/dir/lookup``, ``/photos/<id>`` and the redirect of a fid: where things are."""

from __future__ import annotations

import re
from typing import Any

from aiohttp import web

from directory.decisions.spreading import Place
from directory.errors import PhotoNotFound
from directory.service import Service
from directory.storage.tables import PhotoRecord
from directory.web import json_response, parameters
from haystack.errors import InvalidRequest, VolumeNotFound, VolumeUnavailable
from haystack.fid import MAX_VOLUME_ID, Fid, Locator

_VOLUME = re.compile(r"[0-9]{1,10}")
_PHOTO_ID = re.compile(r"[0-9a-fA-F]{1,16}")
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,10}$")


class LookupHandlers:
    """Handlers that say where volumes and photos are."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def lookup(self, request: web.Request) -> web.Response:
        """Say which Stores have a volume. ``volumeId`` may be a fid too, as in SeaweedFS."""
        given = await parameters(request)
        text = given.get("fileId") or given.get("volumeId")
        if not text:
            raise InvalidRequest("parameter volumeId or fileId is missing, as in /dir/lookup?volumeId=3")
        volume_text = text.partition("@")[0].partition(",")[0].strip()
        caches = self._caches(_photo_of(text)) if "," in text else {}
        names = {"volumeId": volume_text, "volumeOrFileId": volume_text}
        try:
            volume = _parse_volume(volume_text)
            locations = self._locations(volume)
        except (VolumeNotFound, VolumeUnavailable) as error:
            return json_response(request, {**names, "error": str(error)}, error.http_status)
        return json_response(request, {**names, "locations": [_location(place) for place in locations], **caches})

    async def photo(self, request: web.Request) -> web.Response:
        """Say where a photo and its renditions are. The id is hex, as in the fid."""
        text = request.match_info["id"]
        if not _PHOTO_ID.fullmatch(text):
            raise InvalidRequest(f"{text[:40]!r} is not a photo id: expected up to 16 hex digits, as in the fid")
        photo_id = int(text, 16)
        photo = self._service.photo(photo_id)
        if photo is None:
            raise PhotoNotFound(
                f"photo {photo_id:x} is not known, or has expired; one that was stored this moment is known when its "
                "Store has confirmed it"
            )
        stores = self._service.places(photo.volume)
        return json_response(request, _photo_document(photo_id, photo, stores) | self._caches(photo_id))

    async def redirect(self, request: web.Request) -> web.Response:
        """Send the client of ``/<fid>`` to the Cache that keeps it, or to a Store that has it."""
        text = request.match_info["name"]
        fid = _parse_name(text)
        locations = self._locations(fid.volume)
        # What is asked for by its offset is somebody's who wants the Store's own answer.
        caches = [] if "@" in text else self._service.caches.of_photo(fid.key)
        base = _base_url((caches[0] if caches else locations[0].store).public_url)
        # Not permanent: volumes move. The path goes on as it came, with suffix, query and all.
        return web.Response(status=302, headers={"Location": base + request.rel_url.raw_path_qs})

    def _caches(self, photo_id: int | None) -> dict[str, Any]:
        """Return what an answer says of the Caches of a photo: the first to ask, and those to ask when it is silent."""
        caches = self._service.caches.of_photo(photo_id) if photo_id is not None else []
        if not caches:
            return {}
        named = [{"url": one.url, "publicUrl": one.public_url} for one in caches]
        return {"cacheUrl": caches[0].url, "cachePublicUrl": caches[0].public_url, "caches": named}

    def _locations(self, volume: int) -> list[Place]:
        locations = self._service.places(volume)
        if locations:
            return locations
        record = self._service.cluster.records.get(volume)
        if record is None:
            raise VolumeNotFound(f"volume id {volume} not found")
        raise VolumeUnavailable(f"volume {volume} is known, but Store {record.primary} does not have it any more")


def _parse_volume(text: str) -> int:
    if not _VOLUME.fullmatch(text) or not 1 <= int(text) <= MAX_VOLUME_ID:
        raise InvalidRequest(f"{text[:40]!r} is not a volume id: expected 1 … {MAX_VOLUME_ID}")
    return int(text)


def _parse_name(text: str) -> Fid:
    """Return the fid of ``<fid>``, ``<fid>.jpg``, a locator, or ``<volume>/<key cookie>[/<name>]``."""
    if "," not in text:
        volume, _, rest = text.partition("/")
        text = f"{volume},{rest.partition('/')[0]}"
    text = _SUFFIX.sub("", text)
    return Locator.parse(text).fid if "@" in text else Fid.parse(text)


def _photo_of(text: str) -> int | None:
    """Return the photo that a lookup is about; None when what stands behind the volume is no fid, which is allowed."""
    try:
        return _parse_name(text.strip()).key
    except InvalidRequest:
        return None


def _location(place: Place) -> dict[str, Any]:
    store = place.store
    return {
        "url": store.url,
        "publicUrl": store.public_url,
        "dataCenter": store.data_center,
        "weight": round(place.weight, 3),
        "primary": place.primary,
    }


def _base_url(public_url: str) -> str:
    """Return an address with its scheme and without a slash at the end."""
    return (public_url if "://" in public_url else f"http://{public_url}").rstrip("/")


def _photo_document(photo_id: int, photo: PhotoRecord, places: list[Place]) -> dict[str, Any]:
    renditions = []
    for alternate, rendition in sorted(photo.renditions.items()):
        fid = str(Fid(photo.volume, photo_id, photo.cookie, alternate))
        end = {"expires": rendition.expires} if rendition.expires else {}
        renditions.append(
            {
                "alternate": alternate,
                "fid": fid,
                "size": rendition.size_bytes,
                "checksum": f"{rendition.checksum:016x}",
                "timeMs": rendition.time_ms,
                "urls": [f"{_base_url(place.store.public_url)}/{fid}" for place in places],
                **end,
            }
        )
    return {
        "id": f"{photo_id:x}",
        "volume": photo.volume,
        "cookie": f"{photo.cookie:016x}",
        "renditions": renditions,
        "locations": [_location(place) for place in places],
    }
