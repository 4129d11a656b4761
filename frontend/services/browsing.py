"""What pages show around photos: neighbours, the map of one's own, and which of a list one likes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from frontend.database import browsing
from frontend.database import photos as stored
from frontend.database.browsing import Neighbours, Spot
from frontend.database.engine import Database
from frontend.database.people import User
from frontend.database.photos import Photo
from frontend.services.talking import id_of


class Browsing:
    """Answers for pages; never with a photo that the viewer may not see."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def neighbours(self, viewer: User | None, photo: Photo) -> Neighbours:
        """The photos next to this one on its owner's profile."""
        return await self._database.read(browsing.neighbours, photo, id_of(viewer))

    async def spots(self, user: User, limit: int) -> list[Spot]:
        """Where the user's own newest photos were taken, of those of which it is known; newest first."""
        return await self._database.read(browsing.spots, user.id, limit)

    async def own_titles(self, user: User, photo_ids: Collection[int]) -> dict[int, str]:
        """The titles of the user's own photos, by id."""
        return await self._database.read(browsing.titles, user.id, photo_ids)

    async def own_photos(self, user: User, photo_ids: Sequence[int]) -> list[Photo]:
        """The user's own photos with these ids, in their order; those that are gone are left out."""
        found = await self._database.read(stored.in_order, photo_ids)
        return [photo for photo in found if photo.owner_id == user.id]

    async def reacted(self, viewer: User | None, photo_ids: Collection[int]) -> set[int]:
        """Those of the photos that the viewer has reacted to."""
        if viewer is None or not photo_ids:
            return set()
        return await self._database.read(browsing.reacted, viewer.id, photo_ids)
