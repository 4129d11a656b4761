"""Bringing a database to the schema that this release needs."""

from __future__ import annotations

import logging
from pathlib import Path

import alembic.command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from frontend.database import search
from frontend.database.engine import Database
from haystack.errors import ConfigError

_log = logging.getLogger(__name__)

_FOLDER = Path(__file__).parent / "migrations"


def migrate(database: Database) -> None:
    """Carry out the migrations that are missing, and fill the index of photos when they have made it anew.

    Raises
    ------
    ConfigError: the database was written by a later release.
    """
    database.write_now(_migrate)


def _migrate(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.attributes["connection"] = connection
    found = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise ConfigError(f"the database has schema {found}, which this release does not know; use a later release")
    alembic.command.upgrade(config, "head")
    count = search.complete(connection)
    if count:
        _log.info("made %d photos findable", count)
