"""``haystack completion``: the script that teaches a shell to complete the command."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from haystack.errors import ConfigError
from tools.app import App, json_option, pass_app

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@json_option
@pass_app
def completion(app: App, shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    bash: haystack completion bash > ~/.local/share/bash-completion/completions/haystack
    zsh:  haystack completion zsh > "${fpath[1]}/_haystack"
    fish: haystack completion fish > ~/.config/fish/completions/haystack.fish
    """
    completer = get_completion_class(shell)
    if completer is None:
        raise ConfigError(f"this version of click completes no {shell}")
    # source_template, not source(): that one runs the shell to ask for its version, which need not be installed here.
    instance = completer(click.get_current_context().find_root().command, {}, "haystack", "_HAYSTACK_COMPLETE")
    script = instance.source_template % instance.source_vars()
    app.output.document({"shell": shell, "script": script})
    app.output.raw(script)
