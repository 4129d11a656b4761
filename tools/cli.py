"""The ``haystack`` command: its table of subcommands, and what becomes of their errors.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 130 interrupted. An error is one line on standard error;
``HAYSTACK_DEBUG=1`` adds the traceback.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import NoReturn

import click

import haystack
from haystack.errors import HaystackError
from tools.app import EXIT_FAILED, EXIT_USAGE, App, Group, config_option, json_option
from tools.output import printable

EXIT_INTERRUPTED = 130

COMMANDS: Mapping[str, tuple[str, str]] = {
    "up": ("tools.up:up", "Start a whole cluster on this machine."),
    "directory": ("tools.roles:directory", "Run one Directory; back its data up; rebuild it."),
    "store": ("tools.roles:store", "Run one Store."),
    "cache": ("tools.roles:cache", "Run one Cache; show, purge and warm the Caches."),
    "intake": ("tools.intake:intake", "Run one intake: takes uploads for the photo service, beside a Store."),
    "frontend": ("tools.frontend:frontend", "Run the photo service's front end; rebuild its database; set passwords."),
    "put": ("tools.put:put", "Store files."),
    "get": ("tools.get:get", "Fetch a photo."),
    "rm": ("tools.rm:rm", "Delete photos."),
    "undelete": ("tools.rm:undelete", "Bring deleted photos back."),
    "stat": ("tools.stat:stat", "Say what is known of a photo."),
    "import": ("tools.imports:import_", "Store all photos below a folder."),
    "export": ("tools.export:export", "Write photos back into files."),
    "status": ("tools.status:status", "Say how the cluster is."),
    "top": ("tools.top:top", "Show live what the cluster does."),
    "heat": ("tools.heat:heat", "Show which machines, volumes and photos are read most."),
    "node": ("tools.node:node", "List, show, drain, mark and remove Stores."),
    "repair": ("tools.repair:repair", "Say what has too few copies, and repair it at once."),
    "rebalance": ("tools.rebalance:rebalance", "Even out the load of the Stores, and how full they are."),
    "volume": ("tools.volume:volume", "List, show, check, grow and move volumes."),
    "space": ("tools.space:space", "Show where the bytes go, and what compactions would win."),
    "snapshot": ("tools.snapshot:snapshot", "Take, list and give up snapshots of the whole cluster."),
    "backup": ("tools.cluster_backup:backup", "Copy the whole cluster into a folder; of volumes only what is new."),
    "restore": ("tools.cluster_restore:restore_command", "Make a cluster of a backup."),
    "simulate": ("tools.simulate:simulate", "Simulate a cluster over months, with the Directory's decisions."),
    "bench": ("tools.bench:bench", "Load the cluster and say how fast it is."),
    "completion": ("tools.completion:completion", "Print the completion script of a shell."),
}
"""Name, where it is (loaded only when it is used), and one line for the overview."""


class LazyGroup(Group):
    """A group whose commands are imported when they are used, so that each starts as fast as it can."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{attribute} is no click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not ctx.resilient_parsing:
            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            ctx.fail(f"no such command {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(haystack.__version__, prog_name="haystack", message="%(prog)s %(version)s")
@config_option
@json_option
def cli() -> None:
    """Haystack keeps photos: billions of them, one disk read each."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and end the process with its exit code."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Parameters
    ----------
    arguments: as after the command's name; of this process by default.
    """
    try:
        result = cli.main(
            args=list(arguments) if arguments is not None else None,
            prog_name="haystack",
            obj=App(),
            standalone_mode=False,
        )
        sys.stdout.flush()
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "haystack"
        return _fail(f"{_one_line(error.format_message())} (`{where} --help` tells more)", EXIT_USAGE)
    except click.ClickException as error:
        return _fail(_one_line(error.format_message()), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except HaystackError as error:
        return _fail(_one_line(str(error)), error.exit_code)
    except BrokenPipeError:
        # The reader went away, as in `haystack volume list | head -1`. Python flushes standard output at exit and
        # would complain about the closed pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:
        return _fail(_one_line(_os_error(error)), EXIT_FAILED)
    except Exception as error:
        return _fail(
            f"unexpected {type(error).__name__}: {_one_line(str(error))} (a bug in Haystack; run again with "
            "HAYSTACK_DEBUG=1 for the trace to report)",
            EXIT_FAILED,
        )
    return result if isinstance(result, int) else 0


def _fail(message: str, exit_code: int) -> int:
    if os.environ.get("HAYSTACK_DEBUG", "0") not in ("", "0"):
        traceback.print_exc()
    print(f"haystack: {printable(message)}", file=sys.stderr)
    return exit_code


def _one_line(message: str) -> str:
    return " ".join(message.split())


def _os_error(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename is not None else reason


if __name__ == "__main__":
    main()
