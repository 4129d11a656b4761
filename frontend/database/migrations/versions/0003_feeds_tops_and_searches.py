"""Indexes that feeds and look-alikes read alone; sums for top photos; an index of photos that answers from the newest.

The index of photos is left empty here: :func:`frontend.database.search.complete` fills it afterwards, with the code of
the release that runs.
"""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_LIKE_POINTS = 20
_PERIODS = (1, 7, 30, 365)


def upgrade() -> None:
    op.drop_index("ix_photos_owner", "photos")
    op.create_index("ix_photos_owner", "photos", ["owner_id", "created_ms", "id", "visibility"])
    op.drop_index("ix_photos_exact", "photos")
    op.create_index("ix_photos_hashes", "photos", ["owner_id", "exact_hash", "near_hash", "id"])
    op.drop_index("ix_daily_owner", "daily")
    op.drop_table("seen_counters")
    _points(int(time.time()) // 86_400)
    _search()


def _points(today: int) -> None:
    op.create_table(
        "points",
        sa.Column("photo_id", sa.BigInteger(), nullable=False),
        sa.Column("period", sa.SmallInteger(), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["photo_id"], ["photos.id"], name="fk_points_photo_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("photo_id", "period", name="pk_points"),
        sqlite_with_rowid=False,
    )
    windows = op.create_table(
        "windows",
        sa.Column("period", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("first_day", sa.Integer(), nullable=False),
        sa.Column("after_photo_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("period", name="pk_windows"),
    )
    first_days = {0: -1, **{days: today - days + 1 for days in _PERIODS}}
    op.bulk_insert(
        windows,
        [{"period": period, "first_day": day, "after_photo_id": -1} for period, day in first_days.items()],
    )
    op.execute(
        "INSERT INTO points (photo_id, period, owner_id, points)"  # noqa: S608  # a number of ours
        f" SELECT id, 0, owner_id, view_count + {_LIKE_POINTS} * like_count FROM photos"
    )
    for days in _PERIODS:
        op.execute(
            "INSERT INTO points (photo_id, period, owner_id, points)"  # noqa: S608  # numbers of ours
            f" SELECT photo_id, {days}, owner_id, SUM(views + {_LIKE_POINTS} * likes) FROM daily"
            f" WHERE day >= {first_days[days]} GROUP BY photo_id, owner_id"
        )
    op.create_index("ix_points_period", "points", ["period", "points", "photo_id"])
    op.create_index("ix_points_owner", "points", ["owner_id", "period", "points", "photo_id"])


def _search() -> None:
    postgres = op.get_context().dialect.name == "postgresql"
    op.drop_table("search_words")
    op.create_table(
        "search_words",
        # Beginnings of words are looked for as ranges of bytes.
        sa.Column("word", sa.String(length=40, collation="C" if postgres else None), nullable=False),
        sa.Column("photos", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("word", name="pk_search_words"),
        sqlite_with_rowid=False,
    )
    op.drop_table("photo_search")
    if postgres:
        op.execute(
            "CREATE TABLE photo_search (photo_id BIGINT PRIMARY KEY, tags TEXT NOT NULL, title TEXT NOT NULL,"
            " owner TEXT NOT NULL, caption TEXT NOT NULL, camera TEXT NOT NULL, document TSVECTOR NOT NULL)"
        )
        # Without a list of what is still to be indexed, which every search would read.
        op.execute("CREATE INDEX ix_photo_search_document ON photo_search USING gin (document) WITH (fastupdate = off)")
    else:
        op.execute(
            "CREATE VIRTUAL TABLE photo_search USING fts5 (tags, title, owner, caption, camera, marks,"
            " tokenize = \"ascii tokenchars '#@\\:_'\", detail = none, columnsize = 0)"
        )
