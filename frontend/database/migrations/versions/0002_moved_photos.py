"""Photos whose needles moved, records that are to be stored again, and photos that were deleted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "moved_photos",
        sa.Column("store_key", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("photo_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["photo_id"], ["photos.id"], name="fk_moved_photos_photo_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("store_key", name="pk_moved_photos"),
    )
    op.create_index("ix_moved_photos_photo_id", "moved_photos", ["photo_id"])
    op.create_table(
        "record_writes",
        sa.Column("photo_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("retry_ms", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["photo_id"], ["photos.id"], name="fk_record_writes_photo_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("photo_id", name="pk_record_writes"),
    )
    op.create_index("ix_record_writes_retry_ms", "record_writes", ["retry_ms"])
    op.create_table(
        "deleted_photos",
        sa.Column("photo_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("deleted_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("photo_id", name="pk_deleted_photos"),
    )
    op.create_index("ix_deleted_photos_deleted_ms", "deleted_photos", ["deleted_ms"])
