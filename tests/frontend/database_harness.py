"""A database with people and photos, past the services: for the tests of its queries, on SQLite and PostgreSQL."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from postgres_server import new_database

from frontend.database import follows, people, photos
from frontend.database.engine import Database
from frontend.database.migrating import migrate
from frontend.database.photos import Photo
from frontend.visibility import Visibility
from haystack.fid import Fid

Result = TypeVar("Result")
KINDS = ("sqlite", "postgresql")


class Scene:
    """People by name, photos by id; times in ms are small numbers."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.ids: dict[str, int] = {}

    def do(self, act: Callable[..., Result], *args: Any) -> Result:
        return self.database.write_now(act, *args)

    def person(self, name: str) -> int:
        if name not in self.ids:
            made = self.do(
                lambda connection: people.add_user(
                    connection, username=name, name=name, email=None, password_hash=None, now_ms=1
                )
            )
            self.ids[name] = made.id
        return self.ids[name]

    def photo(self, photo_id: int, owner: str, **more: Any) -> Photo:
        """Publish a photo; by default public, and the later the larger its id."""
        made = picture(photo_id, self.person(owner), owner, **more)
        assert self.do(photos.publish, made)
        return made

    def follow(self, follower: str, followee: str) -> None:
        self.do(follows.follow, self.person(follower), self.person(followee), 1)


def picture(photo_id: int, owner_id: int, owner: str, **more: Any) -> Photo:
    given: dict[str, Any] = {
        "id": photo_id, "owner_id": owner_id, "owner_name": owner, "fid": str(Fid(1, photo_id, 7)), "title": "",
        "caption": "", "visibility": Visibility.PUBLIC, "created_ms": photo_id * 1000, "taken_ms": None,
        "latitude": None, "longitude": None, "camera": "", "mime": "image/jpeg", "width": 4, "height": 3,
        "size_bytes": 1, "animated": False, "renditions": (0, 1), "placeholder": b"",
        "exact_hash": hashlib.sha256(b"%d" % photo_id).digest(), "near_hash": photo_id,
    }  # fmt: skip
    return Photo(**given | more)


def make_database(kind: str, folder: Path, socket: Callable[[], str]) -> Database:
    """An empty one with all tables. ``socket``: of a PostgreSQL server."""
    database = Database(f"sqlite:///{folder}/photos.db" if kind == "sqlite" else new_database(socket()))
    migrate(database)
    return database
