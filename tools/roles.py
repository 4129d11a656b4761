"""``haystack directory`` and ``haystack store``: one role in this process, as a service manager starts it."""

from __future__ import annotations

import logging

import click

from haystack.errors import ConfigError
from tools.app import App, config_option, directory_option, pass_app, secret_option, settings_options

LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")


@click.command()
@settings_options("directory")
@secret_option
@config_option
@pass_app
def directory(app: App, /, **flags: object) -> None:
    """Run one Directory until it is told to stop.

    Settings come from the tables [cluster] and [directory] of the configuration file, then from HAYSTACK_DIRECTORY_…
    variables, then from flags.
    """
    _log_to_stderr()
    configuration = app.configuration().with_flags("directory", flags)
    options = configuration.directory()
    secret = configuration.secret()
    _check_secret(secret, options.host)
    # Imported here: the command must start fast, and a Store need not load the Directory's code.
    from directory.server import run
    from directory.settings import DirectorySettings

    run(
        DirectorySettings(
            data=options.data,
            host=options.host,
            port=options.port,
            secret=secret,
            peers_index=options.peers_index,
            peers_count=options.peers_count,
            writable_volumes=options.writable_volumes,
            max_volume_bytes=options.max_volume_bytes,
            heartbeat_seconds=options.heartbeat_seconds,
            dead_after_seconds=options.dead_after_seconds,
            default_replication=options.default_replication,
            repair_copies=options.repair_copies,
            repair_bytes_per_second=options.repair_bytes_per_second,
            repair_delay_seconds=options.repair_delay_seconds,
        )
    )


@click.command()
@settings_options("store")
@directory_option
@secret_option
@config_option
@pass_app
def store(app: App, /, **flags: object) -> None:
    """Run one Store, with its workers, until it is told to stop.

    Settings come from the tables [cluster] and [store] of the configuration file, then from HAYSTACK_STORE_… variables,
    then from flags.
    """
    _log_to_stderr()
    settings = app.configuration().with_flags("store", flags).store()
    _check_secret(settings.secret, settings.host)
    from haystack.store.supervisor import run

    run(settings)


def _check_secret(secret: bytes | None, host: str) -> None:
    if secret is None and host not in LOOPBACK_HOSTS:
        raise ConfigError(
            f"there is no secret, and on {host} everybody who reaches this machine could command this process: give "
            "--secret-file FILE (see docs/configuration.md), or --host 127.0.0.1"
        )


def _log_to_stderr() -> None:
    # Standard output has the ready line alone. Service managers add time stamps of their own, but files do not.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
