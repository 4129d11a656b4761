"""What confirmed needles mean for the map of photos.

A photo belongs to the volume and the cookie that were confirmed first. A needle with the same key elsewhere is
somebody else's choice of number (uploads may name any key): the Store keeps it, the map does not follow it. Otherwise
whoever may upload could put his picture in the place of another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from directory.caches.changes import DELETED, REPLACED
from directory.messages import STORED, Needle
from directory.settings import MAX_ASSIGN_COUNT
from directory.storage.tables import PhotoRecord, Rendition

MAX_RENDITIONS = MAX_ASSIGN_COUNT
"""Renditions in one photo's record. It is rewritten with each of them, so it must not grow for ever."""


@dataclass(slots=True)
class Effect:
    """The changed photos by id (None: no rendition is left), and how many needles had which outcome.

    ``taken_back``: key, alternate and kind of the names whose former content is not to be given out any more, also of
    needles that the map does not list: Caches may keep those, too.
    """

    photos: dict[int, PhotoRecord | None] = field(default_factory=dict)
    taken_back: list[tuple[int, int, str]] = field(default_factory=list)
    stored: int = 0
    deleted: int = 0
    unlisted: int = 0


def apply_needles(volume: int, needles: Iterable[Needle], lookup: Callable[[int], PhotoRecord | None]) -> Effect:
    """Return what becomes of the photos when ``needles`` of ``volume`` are applied in their order.

    Applying needles again, from any point on up to the same end, ends in the same state, as long as all needles of a
    photo carry the same cookie.

    Parameters
    ----------
    lookup: returns the present record of a photo; it is not changed.
    """
    effect = Effect()
    photos = effect.photos
    for needle in needles:
        if needle.key not in photos:
            known = lookup(needle.key)
            photos[needle.key] = known and PhotoRecord(known.volume, known.cookie, dict(known.renditions))
        photo = photos[needle.key]
        if needle.kind == STORED:
            _store(volume, needle, photo, effect)
        else:
            effect.taken_back.append((needle.key, needle.alternate, DELETED))
            _delete(volume, needle, photo, effect)
    return effect


def _store(volume: int, needle: Needle, photo: PhotoRecord | None, effect: Effect) -> None:
    if photo is None:
        photo = effect.photos[needle.key] = PhotoRecord(volume, needle.cookie)
    elif (photo.volume, photo.cookie) != (volume, needle.cookie):
        _leave_unlisted(needle, effect)
        return
    before = photo.renditions.get(needle.alternate)
    if before is None and len(photo.renditions) >= MAX_RENDITIONS:
        _leave_unlisted(needle, effect)
        return
    rendition = Rendition(needle.size_bytes, needle.checksum, needle.time_ms, needle.expires)
    if before is not None and before != rendition:
        effect.taken_back.append((needle.key, needle.alternate, REPLACED))
    photo.renditions[needle.alternate] = rendition
    effect.stored += 1


def _leave_unlisted(needle: Needle, effect: Effect) -> None:
    effect.unlisted += 1
    # Nothing is known of what it may have replaced.
    effect.taken_back.append((needle.key, needle.alternate, REPLACED))


def _delete(volume: int, needle: Needle, photo: PhotoRecord | None, effect: Effect) -> None:
    if photo is None or (photo.volume, photo.cookie) != (volume, needle.cookie):
        return
    if photo.renditions.pop(needle.alternate, None) is not None:
        effect.deleted += 1
    if not photo.renditions:
        effect.photos[needle.key] = None
