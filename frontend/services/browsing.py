"""What pages show around photos: neighbours, the map of one's own, and which of a list one likes."""

from __future__ import annotations

from collections.abc import Collection

from frontend.database import browsing
from frontend.database.browsing import Neighbours
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

    async def placed(self, user: User, limit: int) -> list[Photo]:
        """The user's own photos of which it is known where they were taken, newest first."""
        return await self._database.read(browsing.placed, user.id, limit)

    async def reacted(self, viewer: User | None, photo_ids: Collection[int]) -> set[int]:
        """Those of the photos that the viewer has reacted to."""
        if viewer is None or not photo_ids:
            return set()
        return await self._database.read(browsing.reacted, viewer.id, photo_ids)
