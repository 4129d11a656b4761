"""What every command gets: configuration, output, and the options that commands share.

A command looks like this, and stands in the table of :mod:`tools.cli`::

    @click.command()
    @cluster_options          # --directory, --secret-file, --data, --config and --json
    @pass_app
    def stat(app: App) -> int | None:
        app.output.say(app.directory_url())

An integer that it returns is the exit code. It reports failures by raising an error of :mod:`haystack.errors`.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click

from haystack.config import DEFAULT_DIRECTORY_URL, Configuration, flag_name, settings_of
from haystack.config.kinds import REPLICATION, Choice, FilePath, Kind, ListOf, Share
from haystack.errors import ConfigError, InvalidRequest
from haystack.ttl import parse_ttl
from haystack.units import exact_size
from tools.output import Output

RUNNING_FILE = "up.json"
"""Written into the data folder by ``haystack up`` while it runs: where everything listens."""

SECRET_FILE = "secret"  # noqa: S105 - a file's name

EXIT_FAILED = 1
EXIT_USAGE = 2

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(slots=True)
class App:
    """One run of the command."""

    output: Output = field(default_factory=Output)
    config_path: Path | None = None
    cluster_flags: dict[str, object] = field(default_factory=dict)
    data: Path | None = None
    """The folder of a ``haystack up``, from which secret and addresses are taken."""

    def configuration(self) -> Configuration:
        """Return what file, environment and the shared flags say. Raises ConfigError."""
        path = self.config_path
        if path is None and os.environ.get("HAYSTACK_CONFIG"):
            path = Path(os.environ["HAYSTACK_CONFIG"])
        return Configuration.load(path, os.environ).with_flags("cluster", self.cluster_flags)

    def directory_urls(self) -> tuple[str, ...]:
        """Return the Directories' addresses: flag, environment, file, a running ``up`` in ``--data``, default."""
        configured = self.configuration().directories()
        if configured:
            return configured
        if self.data is None:
            return (DEFAULT_DIRECTORY_URL,)
        running = _running(self.data, "directory")
        if running is None:
            raise ConfigError(
                f"{self.data}: no `haystack up` is running in this folder; start it, or give --directory URL"
            )
        return (running,)

    def running_address(self, name: str) -> str | None:
        """Return where a part of the ``haystack up`` in ``--data`` listens; None without it. Raises ConfigError."""
        return None if self.data is None else _running(self.data, name)

    def directory_url(self) -> str:
        """Return the address of the first Directory."""
        return self.directory_urls()[0]

    def secret(self) -> bytes | None:
        """Return the cluster's secret: flag, environment, file, then of the folder ``--data``; None without any."""
        configuration = self.configuration()
        given = configuration.secret()
        if given is not None:
            return given
        if self.data is None or not (self.data / SECRET_FILE).exists():
            return None
        return configuration.with_flags("cluster", {"secret_file": str(self.data / SECRET_FILE)}).secret()


pass_app = click.make_pass_decorator(App, ensure=True)


class Group(click.Group):
    """A group that shows its help, as wrong usage, when it is called without a command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(EXIT_USAGE)
        return super().parse_args(ctx, args)


def json_option(command: _Function) -> _Function:
    """Add ``--json``."""

    def switch(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value:
            context.ensure_object(App).output.json_mode = True

    return click.option(
        "--json", is_flag=True, expose_value=False, callback=switch, help="Print the result as JSON, and only that."
    )(command)


def config_option(command: _Function) -> _Function:
    """Add ``--config FILE``."""

    def take(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            context.ensure_object(App).config_path = Path(value)

    return click.option(
        "--config",
        metavar="FILE",
        type=click.Path(dir_okay=False),
        expose_value=False,
        callback=take,
        help="Configuration file in TOML. [env: HAYSTACK_CONFIG]",
    )(command)


def secret_option(command: _Function) -> _Function:
    """Add ``--secret-file FILE``."""
    return click.option(
        "--secret-file",
        metavar="FILE",
        type=click.Path(dir_okay=False),
        expose_value=False,
        callback=_cluster_flag("secret_file"),
        help="File with the cluster's secret. [env: HAYSTACK_SECRET_FILE]",
    )(command)


def directory_option(command: _Function) -> _Function:
    """Add ``--directory URL``."""
    return click.option(
        "--directory",
        metavar="URL",
        expose_value=False,
        callback=_cluster_flag("directories"),
        help=f"Address of the Directory. [env: HAYSTACK_DIRECTORY; default: {DEFAULT_DIRECTORY_URL}]",
    )(command)


def cluster_options(command: _Function) -> _Function:
    """Add what a command needs that talks to a cluster."""

    def take_data(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            context.ensure_object(App).data = Path(value)

    data_option = click.option(
        "--data",
        metavar="DIR",
        type=click.Path(file_okay=False),
        expose_value=False,
        callback=take_data,
        help="Folder of a running `haystack up`: take addresses and secret from there.",
    )
    return directory_option(data_option(secret_option(config_option(json_option(command)))))


def replication_option(command: _Function) -> _Function:
    """Add ``--replication XYZ``, an argument of the command."""

    def check(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
        try:
            return None if value is None else str(REPLICATION.parse(value, Path()))
        except ValueError as error:
            raise click.BadParameter(f"{value!r}: {error}; expected {REPLICATION.allowed}") from error

    return click.option(
        "--replication",
        metavar="XYZ",
        callback=check,
        help="Copies in other data centers, in other racks, on other machines of the rack [default: the cluster's].",
    )(command)


def ttl_option(command: _Function) -> _Function:
    """Add ``--ttl TTL``, an argument of the command."""

    def check(context: click.Context, parameter: click.Parameter, value: str) -> str:
        try:
            parse_ttl(value)
        except InvalidRequest as error:
            raise click.BadParameter(str(error)) from error
        return value

    return click.option(
        "--ttl",
        metavar="TTL",
        default="",
        callback=check,
        help="How long they live, such as 3m, 4h, 5d, 6w, 7M, 8y, or seconds [default: for ever].",
    )(command)


def settings_options(table: str) -> Callable[[_Function], _Function]:
    """Add one flag for each setting of a table; pass what the command gets to ``Configuration.with_flags``."""

    def decorate(command: _Function) -> _Function:
        for key, kind, help_text, default in reversed(list(settings_of(table))):
            shown = _shown_default(key, kind, default)
            command = click.option(
                f"--{flag_name(table, key)}",
                key,
                metavar=kind.placeholder,
                type=_click_type(kind),
                multiple=isinstance(kind, ListOf),
                help=f"{help_text} [default: {shown}]" if shown else help_text,
            )(command)
        return command

    return decorate


def _click_type(kind: Kind) -> click.ParamType[Any]:
    # Only what shells can complete; values are checked by the configuration, with one wording for all sources.
    item = kind.item if isinstance(kind, ListOf) else kind
    if isinstance(item, Choice):
        return click.Choice(item.words)
    return click.Path() if isinstance(item, FilePath) else click.STRING


def _shown_default(key: str, kind: Kind, default: object) -> str:
    if default is None or default is dataclasses.MISSING or default == ():
        return ""
    if "_bytes" in key and isinstance(default, int):
        return exact_size(default)
    if isinstance(default, float):
        return f"{default:g}" if isinstance(kind, Share) else f"{default:g}s"
    return str(default)


def _cluster_flag(key: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
    def take(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            context.ensure_object(App).cluster_flags[key] = value

    return take


def _running(data: Path, name: str) -> str | None:
    try:
        document = json.loads((data / RUNNING_FILE).read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{data / RUNNING_FILE}: cannot be read: {error}; give --directory URL") from error
    found = document.get(name) if isinstance(document, dict) else None
    url = found.get("url") if isinstance(found, dict) else found
    return url if isinstance(url, str) else None
