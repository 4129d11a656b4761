"""The database anew, from the records that are stored beside the photos."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from sqlalchemy import Connection, func, insert, select, text

from frontend.database import chores, people, photos
from frontend.database.engine import Database, is_postgres
from frontend.database.people import User
from frontend.database.tables import users
from frontend.records import Record
from frontend.services.photos import publish
from haystack.fid import Fid


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as it was found.

    Parameters
    ----------
    time_ms: when its needle was written.
    """

    record: Record
    time_ms: int


@dataclass(slots=True)
class Rebuilt:
    """What came of it.

    Parameters
    ----------
    photos, people: that were not in the database before.
    known: photos that were.
    renamed: people whose user name was somebody else's meanwhile: old name → new one.
    replaced: photos with two records, of which the later one holds.
    """

    photos: int = 0
    people: int = 0
    known: int = 0
    replaced: int = 0
    renamed: dict[str, str] | None = None


async def rebuild(database: Database, records: AsyncIterator[StoredRecord], now_ms: int) -> Rebuilt:
    """Take in all records; what is in the database already stays as it is.

    When a photo was being stored anew as the database was lost, both sets of needles have a record: the later one
    holds, and the needles of the other one are removed. Safe to repeat.

    Raises
    ------
    DatabaseUnavailable: what was taken in until then stays.
    """
    done = Rebuilt(renamed={})
    times: dict[int, tuple[int, str]] = {}
    owners: dict[int, User] = {}
    async for one in records:
        record = one.record
        if record.owner_id not in owners:
            owners[record.owner_id] = await database.write(_owner, record, now_ms, done)
        before = times.get(record.photo_id)
        if before is None or one.time_ms > before[0]:
            times[record.photo_id] = one.time_ms, record.fid
        await database.write(_take, record, owners[record.owner_id], before, one.time_ms, now_ms, done)
    await database.write(_go_on_counting)
    return done


def _owner(connection: Connection, record: Record, now_ms: int, done: Rebuilt) -> User:
    """The owner of a record: the one who is there, or somebody without a password."""
    there = people.by_id(connection, record.owner_id)
    if there is not None and there.username == record.owner_name:
        return there
    name = record.owner_name
    if people.by_username(connection, name) is not None:
        # Who has signed up under this name meanwhile must not get somebody else's photos.
        name = f"{name[:20]}_{record.owner_id % 10**9}"
        taken = people.by_username(connection, name)
        if taken is not None:
            return taken
        assert done.renamed is not None
        done.renamed[record.owner_name] = name
    values = {"username": name, "name": record.owner_shown or name, "created_ms": record.created_ms or now_ms}
    if there is None:
        values["id"] = record.owner_id
    result = connection.execute(insert(users).values(**values))
    assert result.inserted_primary_key is not None
    made = people.by_id(connection, int(result.inserted_primary_key[0]))
    assert made is not None
    done.people += 1
    return made


def _take(
    connection: Connection,
    record: Record,
    owner: User,
    before: tuple[int, str] | None,
    time_ms: int,
    now_ms: int,
    done: Rebuilt,
) -> None:
    record = replace(record, owner_id=owner.id, owner_name=owner.username)
    if before is None:
        if publish(connection, record, now_ms):
            done.photos += 1
        else:
            done.known += 1
        return
    kept = photos.whatever(connection, record.photo_id)
    if kept is None or kept.fid == record.fid:
        return
    done.replaced += 1
    if time_ms <= before[0]:
        chores.remove_needles(connection, record.photo_id, record.fid, record.renditions, now_ms)
        return
    chores.remove_needles(connection, kept.id, kept.fid, kept.renditions, now_ms)
    photos.change(
        connection,
        replace(
            kept,
            fid=record.fid,
            title=record.title,
            caption=record.caption,
            tags=record.tags,
            visibility=type(kept.visibility)(record.visibility),
            latitude=record.latitude,
            longitude=record.longitude,
        ),
    )
    chores.set_fid(connection, kept.id, record.fid, record.fid, Fid.parse(record.fid).key)


def _go_on_counting(connection: Connection) -> None:
    """New people get numbers behind those that were given by hand."""
    if is_postgres(connection):
        most = connection.execute(select(func.max(users.c.id))).scalar_one_or_none()
        if most is not None:
            connection.execute(text("SELECT setval(pg_get_serial_sequence('users', 'id'), :most)"), {"most": most})
