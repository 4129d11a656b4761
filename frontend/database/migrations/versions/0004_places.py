"""An index of the photos of which it is known where they were taken, for maps."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    known = sa.text("latitude IS NOT NULL")
    op.create_index(
        "ix_photos_places",
        "photos",
        ["owner_id", "created_ms", "id", "latitude", "longitude"],
        sqlite_where=known,
        postgresql_where=known,
    )
