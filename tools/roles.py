"""``haystack directory``, ``store`` and ``cache``: one role in this process, as a service manager starts it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from haystack.config import Configuration
from haystack.errors import ConfigError
from haystack.lifetime import log_to_stderr
from tools.app import App, config_option, directory_option, pass_app, secret_option, settings_options

if TYPE_CHECKING:
    from directory.settings import DirectorySettings

LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")


class RoleGroup(click.Group):
    """A role, and beside it commands that are loaded when they are used: where each is, and a line about it."""

    commands_there: Mapping[str, tuple[str, str]] = {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands_there)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands_there:
            return None
        module, _, attribute = self.commands_there[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self.commands_there.items()])


class DirectoryGroup(RoleGroup):
    """``haystack directory``."""

    commands_there: Mapping[str, tuple[str, str]] = {
        "backup": ("tools.backup:backup", "Write a consistent copy of a running Directory's data into a file."),
        "rebuild": ("tools.rebuild:rebuild", "Make the Directory's data anew from the Stores alone."),
    }


class CacheGroup(RoleGroup):
    """``haystack cache``."""

    commands_there: Mapping[str, tuple[str, str]] = {
        "stats": ("tools.cache:stats", "Show what the Caches hold, and how often that serves."),
        "purge": ("tools.cache:purge", "Drop photos from the Caches."),
        "warm": ("tools.cache:warm", "Have the Caches fetch the hottest photos."),
    }


@click.group(cls=DirectoryGroup, invoke_without_command=True)
@settings_options("directory")
@secret_option
@config_option
@click.pass_context
def directory(context: click.Context, /, **flags: object) -> None:
    """Run one Directory until it is told to stop; or, with a command, look after its data.

    Settings come from the tables [cluster] and [directory] of the configuration file, then from HAYSTACK_DIRECTORY_…
    variables, then from flags.
    """
    if is_other_command(context, flags):
        return
    log_to_stderr()
    settings = directory_settings(context.ensure_object(App).configuration().with_flags("directory", flags))
    # Imported here: the command must start fast, and a Store need not load the Directory's code.
    from directory.server import run

    run(settings)


def directory_settings(configuration: Configuration) -> DirectorySettings:
    """Return a Directory's settings. Raises ConfigError."""
    options = configuration.directory()
    secret = configuration.secret()
    _check_secret(secret, options.host)
    from directory.settings import DirectorySettings

    return DirectorySettings(
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
        move_copies=options.move_copies,
        move_copies_per_store=options.move_copies_per_store,
        move_bytes_per_second=options.move_bytes_per_second,
        move_linger_seconds=options.move_linger_seconds,
        compact_garbage_share=options.compact_garbage_share,
        rebalance_auto=options.rebalance_auto == "on",
        rebalance_look_seconds=options.rebalance_look_seconds,
        rebalance_watch_seconds=options.rebalance_watch_seconds,
        rebalance_bytes=options.rebalance_bytes,
        rebalance_moves=options.rebalance_moves,
        rebalance_rest_seconds=options.rebalance_rest_seconds,
        rebalance_payback_seconds=options.rebalance_payback_seconds,
        rebalance_copies=options.rebalance_copies,
        rebalance_fill_limit=options.rebalance_fill_limit,
        rebalance_load_bytes=options.rebalance_load_bytes,
        cache_spread_reads_per_second=float(options.cache_spread_reads_per_second),
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
    log_to_stderr()
    settings = app.configuration().with_flags("store", flags).store()
    _check_secret(settings.secret, settings.host)
    from haystack.store.supervisor import run

    run(settings)


@click.group(cls=CacheGroup, invoke_without_command=True)
@settings_options("cache")
@directory_option
@secret_option
@config_option
@click.pass_context
def cache(context: click.Context, /, **flags: object) -> None:
    """Run one Cache, with its workers, until it is told to stop; or, with a command, look after the Caches.

    Settings come from the tables [cluster] and [cache] of the configuration file, then from HAYSTACK_CACHE_… variables,
    then from flags.
    """
    if is_other_command(context, flags):
        return
    log_to_stderr()
    settings = context.ensure_object(App).configuration().with_flags("cache", flags).cache()
    _check_secret(settings.secret, settings.host)
    from cache.keeper import run

    run(settings)


def is_other_command(context: click.Context, flags: Mapping[str, object]) -> bool:
    """Whether a command beside the role was called. Raises UsageError when it was given the role's options."""
    if context.invoked_subcommand is None:
        return False
    if any(value not in (None, ()) for value in flags.values()):
        raise click.UsageError(f"options of {context.invoked_subcommand} stand behind that word")
    return True


def _check_secret(secret: bytes | None, host: str) -> None:
    if secret is None and host not in LOOPBACK_HOSTS:
        raise ConfigError(
            f"there is no secret, and on {host} everybody who reaches this machine could command this process: give "
            "--secret-file FILE (see docs/configuration.md), or --host 127.0.0.1"
        )
