"""Alembic's entry: migrations run on the connection that :mod:`frontend.database.migrating` gives."""

from __future__ import annotations

from alembic import context

from frontend.database.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite cannot alter most of a table: Alembic then copies it.
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
