"""The tables. Times are ms since 1970, ids are 64-bit numbers; a photo's id is its key in the store.

What is counted by others is kept beside (``photo_count``, ``like_count``, …) and changed in the same transaction: pages
show counts of everything, and counting rows each time would cost more than the page.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_Id = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself for INTEGER PRIMARY KEY alone."""


users = Table(
    "users",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("username", String(30), nullable=False, unique=True),
    Column("name", String(80), nullable=False),
    Column("email", String(254), nullable=True, unique=True),
    Column("password_hash", String(255), nullable=True),
    Column("bio", String(500), nullable=False, server_default=""),
    Column("created_ms", BigInteger, nullable=False),
    Column("photo_count", Integer, nullable=False, server_default="0"),
    Column("follower_count", Integer, nullable=False, server_default="0"),
    Column("following_count", Integer, nullable=False, server_default="0"),
)
"""``username`` is lower case. ``email`` and ``password_hash`` are null of somebody who was rebuilt out of photos."""

sessions = Table(
    "sessions",
    metadata,
    Column("token_hash", LargeBinary(32), primary_key=True),
    Column("user_id", BigInteger, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False, index=True),
)
"""``token_hash``: SHA-256 of what the cookie holds, so that a stolen database opens no session."""

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("user_id", BigInteger, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("name", String(80), nullable=False),
    Column("token_hash", LargeBinary(32), nullable=False, unique=True),
    Column("created_ms", BigInteger, nullable=False),
)

follows = Table(
    "follows",
    metadata,
    Column("follower_id", BigInteger, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("followee_id", BigInteger, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("created_ms", BigInteger, nullable=False),
    CheckConstraint("follower_id <> followee_id", name="not_oneself"),
    Index("ix_follows_followee", "followee_id", "created_ms", "follower_id"),
    Index("ix_follows_follower", "follower_id", "created_ms", "followee_id"),
    sqlite_with_rowid=False,
)

photos = Table(
    "photos",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("owner_id", BigInteger, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("fid", String(64), nullable=False),
    Column("title", String(200), nullable=False, server_default=""),
    Column("caption", Text, nullable=False, server_default=""),
    Column("visibility", SmallInteger, nullable=False, server_default="0"),
    Column("created_ms", BigInteger, nullable=False),
    Column("taken_ms", BigInteger),
    Column("latitude", Float),
    Column("longitude", Float),
    Column("camera", String(100), nullable=False, server_default=""),
    Column("mime", String(40), nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("animated", Boolean, nullable=False),
    Column("renditions", String(200), nullable=False),
    Column("placeholder", LargeBinary(64), nullable=False),
    Column("exact_hash", LargeBinary(32), nullable=False),
    Column("near_hash", BigInteger, nullable=False),
    Column("like_count", Integer, nullable=False, server_default="0"),
    Column("comment_count", Integer, nullable=False, server_default="0"),
    Column("view_count", BigInteger, nullable=False, server_default="0"),
    Index("ix_photos_owner", "owner_id", "created_ms", "id", "visibility"),
    Index("ix_photos_visibility", "visibility", "created_ms", "id"),
    Index("ix_photos_hashes", "owner_id", "exact_hash", "near_hash", "id"),
    Index(
        "ix_photos_places",
        "owner_id",
        "created_ms",
        "id",
        "latitude",
        "longitude",
        sqlite_where=text("latitude IS NOT NULL"),
        postgresql_where=text("latitude IS NOT NULL"),
    ),
)
"""``created_ms``: when it was published, which is the order of feeds. ``renditions``: alternate keys, with commas.
The indexes have all columns that feeds, maps and the search for look-alikes read, so that these never touch the
table."""

photo_tags = Table(
    "photo_tags",
    metadata,
    Column("tag", String(50), primary_key=True),
    Column("photo_id", BigInteger, ForeignKey("photos.id", ondelete="CASCADE"), primary_key=True, index=True),
    sqlite_with_rowid=False,
)

comments = Table(
    "comments",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("photo_id", BigInteger, ForeignKey("photos.id", ondelete="CASCADE"), nullable=False),
    Column("author_id", BigInteger, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("text", String(2000), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Index("ix_comments_photo", "photo_id", "created_ms", "id"),
)

likes = Table(
    "likes",
    metadata,
    Column("photo_id", BigInteger, ForeignKey("photos.id", ondelete="CASCADE"), primary_key=True),
    Column("user_id", BigInteger, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, index=True),
    Column("reaction", String(16), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

daily = Table(
    "daily",
    metadata,
    Column("day", Integer, primary_key=True),
    Column("photo_id", BigInteger, ForeignKey("photos.id", ondelete="CASCADE"), primary_key=True, index=True),
    Column("owner_id", BigInteger, nullable=False),
    Column("views", BigInteger, nullable=False, server_default="0"),
    Column("likes", Integer, nullable=False, server_default="0"),
    sqlite_with_rowid=False,
)
"""Views and likes of a photo on a day (days since 1970)."""

points = Table(
    "points",
    metadata,
    Column("photo_id", BigInteger, ForeignKey("photos.id", ondelete="CASCADE"), primary_key=True),
    Column("period", SmallInteger, primary_key=True),
    Column("owner_id", BigInteger, nullable=False),
    Column("points", BigInteger, nullable=False),
    Index("ix_points_period", "period", "points", "photo_id"),
    Index("ix_points_owner", "owner_id", "period", "points", "photo_id"),
    sqlite_with_rowid=False,
)
"""What a photo has earned in a period (days up to today; 0: ever), see :mod:`frontend.database.points`."""

windows = Table(
    "windows",
    metadata,
    Column("period", SmallInteger, primary_key=True, autoincrement=False),
    Column("first_day", Integer, nullable=False),
    Column("after_photo_id", BigInteger, nullable=False),
)
"""From which day on the sums of a period have what photos earned."""

uploads = Table(
    "uploads",
    metadata,
    Column("owner_id", BigInteger, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("idempotency_key", String(100), primary_key=True),
    Column("request_hash", LargeBinary(32), nullable=False),
    Column("photo_id", BigInteger, nullable=False),
    Column("answer", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False, index=True),
)
"""Uploads that were asked for with an ``Idempotency-Key``: asked again, they are answered the same."""

removals = Table(
    "removals",
    metadata,
    Column("photo_id", BigInteger, primary_key=True, autoincrement=False),
    Column("fid", String(64), primary_key=True),
    Column("renditions", String(200), nullable=False),
    Column("retry_ms", BigInteger, nullable=False, index=True),
    Column("attempts", Integer, nullable=False, server_default="0"),
)
"""Needles that are still to be deleted from the store: written with the transaction that gave the photo up."""

moved_photos = Table(
    "moved_photos",
    metadata,
    Column("store_key", BigInteger, primary_key=True, autoincrement=False),
    Column("photo_id", BigInteger, ForeignKey("photos.id", ondelete="CASCADE"), nullable=False, index=True),
)
"""Keys in the store of photos that were stored anew, and so have another key than their id."""

record_writes = Table(
    "record_writes",
    metadata,
    Column("photo_id", BigInteger, ForeignKey("photos.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("revision", BigInteger, nullable=False),
    Column("retry_ms", BigInteger, nullable=False, index=True),
    Column("attempts", Integer, nullable=False, server_default="0"),
)
"""Records that are still to be stored beside their photos, since something in them was changed."""

deleted_photos = Table(
    "deleted_photos",
    metadata,
    Column("photo_id", BigInteger, primary_key=True, autoincrement=False),
    Column("deleted_ms", BigInteger, nullable=False, index=True),
)
"""Photos that were deleted not long ago: an intake that publishes one once more does not bring it back."""

search_words = Table(
    "search_words",
    metadata,
    Column("word", String(40).with_variant(String(40, collation="C"), "postgresql"), primary_key=True),
    Column("photos", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""Every word that a photo was ever found by, and how many photos were published with it: what beginnings stand for,
and what misspelt words are compared with."""
