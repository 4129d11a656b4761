"""What views and likes have brought a photo: of each day, and added up for the periods that "top photos" asks for.

A period ends today. Its sums grow with every view and like; what a day has brought is taken off them when the day
leaves the period (:func:`roll`), so that nobody ever adds up the days of a year.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select, text, update

from frontend.database.tables import daily, photos, points, windows

LIKE_POINTS = 20
"""A like counts as so many views: about one view in twenty is liked where people like much."""
EVER = 0
PERIODS = (1, 7, 30, 365)
"""Days, today included."""
SLICE = 2000
"""Photos whose points are taken off in one transaction."""

_ADD_DAILY = text(
    "INSERT INTO daily (day, photo_id, owner_id, views, likes) VALUES (:day, :photo_id, :owner_id, :views, :likes)"
    " ON CONFLICT (day, photo_id) DO UPDATE SET views = daily.views + excluded.views,"
    " likes = daily.likes + excluded.likes"
)
_ADD = text(
    "INSERT INTO points (photo_id, period, owner_id, points) VALUES (:photo_id, :period, :owner_id, :points)"
    " ON CONFLICT (photo_id, period) DO UPDATE SET points = points.points + excluded.points"
)


@dataclass(frozen=True, slots=True)
class Gain:
    """What a photo got on a day; a like that was taken back is one less."""

    photo_id: int
    owner_id: int
    views: int = 0
    likes: int = 0

    @property
    def points(self) -> int:
        return self.views + LIKE_POINTS * self.likes


@dataclass(frozen=True, slots=True)
class Window:
    """The first day of a period.

    Parameters
    ----------
    after_photo_id: of this day, photos up to this one are no longer in the period.
    """

    period: int
    first_day: int
    after_photo_id: int

    def has(self, day: int, photo_id: int) -> bool:
        """Whether what the photo got on a day is in the period's sums."""
        return (day, photo_id) > (self.first_day, self.after_photo_id)


def begin(connection: Connection, photo_id: int, owner_id: int) -> None:
    """A photo is new: it has no points, and is among those of ever."""
    connection.execute(insert(points).values(photo_id=photo_id, period=EVER, owner_id=owner_id, points=0))


def add(connection: Connection, gains: Sequence[Gain], day: int) -> None:
    """Add what some photos got on a day. Photos in rising order, so that two who add do not wait for each other."""
    if not gains:
        return
    gains = sorted(gains, key=lambda gain: gain.photo_id)
    connection.execute(
        _ADD_DAILY,
        [
            {"day": day, "photo_id": one.photo_id, "owner_id": one.owner_id, "views": one.views, "likes": one.likes}
            for one in gains
        ],
    )
    # What is taken back may be of a day that leaves a period just now.
    known = _windows(connection, lock=any(gain.points < 0 for gain in gains))
    rows = [
        {"photo_id": one.photo_id, "period": window.period, "owner_id": one.owner_id, "points": one.points}
        for window in known
        for one in gains
        if window.has(day, one.photo_id)
    ]
    connection.execute(_ADD, rows)


def count_views(connection: Connection, views: Mapping[int, int], day: int) -> None:
    """Add the views of a day: photo id → how many. Those of photos that are gone do not count."""
    if not views:
        return
    owners = select(photos.c.id, photos.c.owner_id).where(photos.c.id.in_(views)).with_for_update()
    gains = [
        Gain(row.id, row.owner_id, views=views[row.id]) for row in connection.execute(owners.order_by(photos.c.id))
    ]
    if gains:
        connection.execute(
            text("UPDATE photos SET view_count = view_count + :views WHERE id = :photo_id"),
            [{"photo_id": one.photo_id, "views": one.views} for one in gains],
        )
    add(connection, gains, day)


def roll(connection: Connection, today: int) -> bool:
    """Take off the periods what has left them, of at most ``SLICE`` photos. Whether there may be more."""
    for window in _windows(connection, lock=False):
        if window.period != EVER and window.first_day < today - window.period + 1:
            _roll(connection, window.period, today - window.period + 1)
            return True
    return False


def _roll(connection: Connection, period: int, wanted_day: int) -> None:
    locked = select(windows).where(windows.c.period == period).with_for_update()
    window = Window(*connection.execute(locked).one())
    if window.first_day >= wanted_day:
        return  # another front end was faster
    left = (
        select(daily.c.photo_id, daily.c.views, daily.c.likes)
        .where(daily.c.day == window.first_day, daily.c.photo_id > window.after_photo_id)
        .order_by(daily.c.photo_id)
        .limit(SLICE)
    )
    gone = [Gain(row.photo_id, 0, row.views, row.likes) for row in connection.execute(left)]
    if gone:
        connection.execute(
            text("UPDATE points SET points = points - :points WHERE photo_id = :photo_id AND period = :period"),
            [{"photo_id": one.photo_id, "points": one.points, "period": period} for one in gone],
        )
        ids = [one.photo_id for one in gone]
        connection.execute(
            delete(points).where(points.c.period == period, points.c.photo_id.in_(ids), points.c.points <= 0)
        )
    after = {"after_photo_id": gone[-1].photo_id} if len(gone) == SLICE else _next(connection, window, wanted_day)
    connection.execute(update(windows).where(windows.c.period == period).values(**after))


def _next(connection: Connection, window: Window, wanted_day: int) -> dict[str, int]:
    """The period begins on the next day of which there is something, at most on the one wanted."""
    query = select(func.min(daily.c.day)).where(daily.c.day > window.first_day)
    following = connection.execute(query).scalar_one()
    return {"first_day": wanted_day if following is None else min(wanted_day, int(following)), "after_photo_id": -1}


def _windows(connection: Connection, *, lock: bool) -> list[Window]:
    query = select(windows.c.period, windows.c.first_day, windows.c.after_photo_id).order_by(windows.c.period)
    rows = connection.execute(query.with_for_update(read=True) if lock else query)
    return [Window(*row) for row in rows]
