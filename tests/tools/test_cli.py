"""The framework of the command: exit codes, one-line errors, pure JSON, help, completion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

import haystack
from haystack.errors import ConfigError, OutOfSpace
from tools import cli
from tools.app import App, cluster_options, pass_app
from tools.output import Column


@click.command()
@click.option("--fail")
@click.option("--code", type=int)
@cluster_options
@pass_app
def sample(app: App, fail: str | None, code: int | None) -> int | None:
    """A command for tests."""
    errors: dict[str, Callable[[], BaseException]] = {
        "usage": lambda: click.UsageError("wrong\nusage", click.get_current_context()),
        "config": lambda: ConfigError("store.port: 'x'\nis not allowed"),
        "error": lambda: OutOfSpace("the disk \x1b[31mis full"),
        "bug": lambda: ZeroDivisionError("division by zero"),
        "os": lambda: PermissionError(13, "Permission denied", "/some/file"),
        "interrupt": KeyboardInterrupt,
        "abort": click.Abort,
        "click": lambda: click.ClickException("no such thing"),
    }
    if fail:
        raise errors[fail]()
    app.output.note("a note")
    app.output.table([Column("name"), Column("size", right=True)], [["a", 1], ["bcd", 20]])
    app.output.say(f"directory {app.directory_url()}")
    app.output.document({"directory": app.directory_url()})
    return code


@pytest.fixture(autouse=True)
def only_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = {**cli.COMMANDS, "sample": (f"{__name__}:sample", "A sample.")}
    monkeypatch.setattr(cli, "COMMANDS", commands)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    for name in [name for name in os.environ if name.startswith("HAYSTACK_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["sample", "--fail", "usage"], 2, "haystack: wrong usage (`haystack sample --help` tells more)\n"),
        (["sample", "--fail", "config"], 2, "haystack: store.port: 'x' is not allowed\n"),
        (["sample", "--fail", "error"], 1, "haystack: the disk \\x1b[31mis full\n"),
        (["sample", "--fail", "os"], 1, "haystack: /some/file: Permission denied\n"),
        (["sample", "--fail", "click"], 1, "haystack: no such thing\n"),
        (["sample", "--fail", "interrupt"], 130, ""),
        (["sample", "--fail", "abort"], 130, ""),
        (["sampel"], 2, "haystack: no such command 'sampel'; did you mean sample? (`haystack --help` tells more)\n"),
        (["xyzzy"], 2, "haystack: no such command 'xyzzy' (`haystack --help` tells more)\n"),
        (["--nothing"], 2, "haystack: No such option"),
        (["sample", "x"], 2, "haystack: Got unexpected extra argument"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
    capsys: pytest.CaptureFixture[str], arguments: list[str], exit_code: int, message: str
) -> None:
    assert cli.run(arguments) == exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(message) if message else err.strip() == ""
    assert err.count("\n") <= 1
    assert "Traceback" not in err


def test_a_bug_is_one_line_that_tells_how_to_get_the_trace(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.run(["sample", "--fail", "bug"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("haystack: unexpected ZeroDivisionError: division by zero")
    assert "HAYSTACK_DEBUG=1" in err
    assert err.count("\n") == 1
    monkeypatch.setenv("HAYSTACK_DEBUG", "1")
    assert cli.run(["sample", "--fail", "bug"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize(("code", "exit_code"), [([], 0), (["--code", "0"], 0), (["--code", "1"], 1)])
def test_a_command_returns_its_exit_code(code: list[str], exit_code: int) -> None:
    assert cli.run(["sample", *code]) == exit_code


@pytest.mark.parametrize("arguments", [["--json", "sample"], ["sample", "--json"]])
def test_json_is_all_that_stdout_holds(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert cli.run(arguments) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"directory": "http://127.0.0.1:9333"}
    assert err == "a note\n"


def test_text_is_aligned_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["sample"]) == 0
    out, _ = capsys.readouterr()
    assert out == "NAME  SIZE\na        1\nbcd     20\ndirectory http://127.0.0.1:9333\n"


class TestDirectoryAddress:
    def address(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
        capsys.readouterr()
        assert cli.run(["sample", "--json", *arguments]) == 0
        found = json.loads(capsys.readouterr().out)["directory"]
        assert isinstance(found, str)
        return found

    def test_each_source(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "up.json").write_text('{"directory": "http://up:1"}')
        assert self.address(capsys, "--data", str(tmp_path)) == "http://up:1"
        (tmp_path / "file.toml").write_text('[cluster]\ndirectories = "http://file:1"')
        assert self.address(capsys, "--data", str(tmp_path), "--config", str(tmp_path / "file.toml")) == "http://file:1"
        monkeypatch.setenv("HAYSTACK_CONFIG", str(tmp_path / "file.toml"))
        assert self.address(capsys) == "http://file:1"
        monkeypatch.setenv("HAYSTACK_DIRECTORY", "http://env:1")
        assert self.address(capsys) == "http://env:1"
        assert self.address(capsys, "--directory", "http://flag:1/") == "http://flag:1"

    def test_wrong_ones_are_named(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        assert cli.run(["sample", "--directory", "flag:1"]) == 2
        assert "flag --directory" in capsys.readouterr().err
        monkeypatch.setenv("HAYSTACK_DIRCTORY", "http://env:1")
        assert cli.run(["sample"]) == 2
        assert "HAYSTACK_DIRCTORY: no such setting; did you mean HAYSTACK_DIRECTORY?" in capsys.readouterr().err

    def test_a_folder_that_is_not_running_is_told(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        assert cli.run(["sample", "--data", str(tmp_path)]) == 2
        assert (
            "no `haystack up` is running in this folder; start it, or give --directory URL" in capsys.readouterr().err
        )

    def test_a_broken_up_json_is_named(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        (tmp_path / "up.json").write_text("{")
        assert cli.run(["sample", "--data", str(tmp_path)]) == 2
        assert "up.json: cannot be read" in capsys.readouterr().err


class TestSecret:
    def test_from_the_folder_of_up(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("s" * 64)
        (tmp_path / "secret").chmod(0o600)
        assert App(data=tmp_path).secret() == b"s" * 64

    def test_none(self, tmp_path: Path) -> None:
        assert App().secret() is None
        assert App(data=tmp_path).secret() is None

    def test_a_file_that_is_named_wins_over_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("s" * 64)
        (tmp_path / "secret").chmod(0o600)
        (tmp_path / "other").write_text("o" * 64)
        (tmp_path / "other").chmod(0o600)
        assert App(data=tmp_path, cluster_flags={"secret_file": str(tmp_path / "other")}).secret() == b"o" * 64


def test_every_command_of_the_table_is_there_with_help_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    context = click.Context(cli.cli, obj=App())
    long_running = {"store", "directory", "intake"}
    for name in cli.COMMANDS:
        command = cli.cli.get_command(context, name)
        assert command is not None
        assert cli.run([name, "--help"]) == 0
        text = capsys.readouterr().out
        assert text.startswith(f"Usage: haystack {name}")
        leaves = command.commands.values() if isinstance(command, click.Group) else [command]
        for leaf in leaves:
            assert leaf.help, f"{name} {leaf.name} has no help"
            options = [option for one in leaf.params for option in one.opts]
            assert name in long_running or "--json" in options, f"{name} {leaf.name} has no --json"


def test_help_lists_the_commands_and_is_wrong_usage_when_not_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert all(name in out for name in cli.COMMANDS)
    assert cli.run([]) == 2
    assert capsys.readouterr() == ("", out)


@pytest.mark.parametrize("role", ["directory", "store"])
def test_a_role_that_others_reach_needs_a_secret(capsys: pytest.CaptureFixture[str], tmp_path: Path, role: str) -> None:
    assert cli.run([role, "--data", str(tmp_path / "data"), "--host", "0.0.0.0", "--port", "0"]) == 2
    assert "there is no secret, and on 0.0.0.0 everybody" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"haystack {haystack.__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert cli.run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"_HAYSTACK_COMPLETE={shell}_complete" in script
    assert cli.run(["completion", shell, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"shell": shell, "script": script.removesuffix("\n")}


def test_bash_takes_its_script() -> None:
    script = _haystack("completion", "bash").stdout
    subprocess.run(["bash", "-n"], input=script, text=True, check=True, timeout=60)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("haystack statu", {"status"}),
        ("haystack volume li", {"list"}),
        ("haystack completion ", {"bash", "zsh", "fish"}),
        ("haystack store --durability ", {"fsync", "os"}),
        ("haystack store --max-ph", {"--max-photo-bytes"}),
    ],
)
def test_completions(words: str, expected: set[str]) -> None:
    result = _haystack(
        environ={"_HAYSTACK_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    )
    assert {line.partition(",")[2] for line in result.stdout.splitlines()} == expected


def test_a_reader_that_goes_away_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer) as closed:
        result = subprocess.run(
            [sys.executable, "-m", "tools.cli", "completion", "zsh"],
            stdout=closed,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert (result.returncode, result.stderr) == (1, b"")


def test_a_command_starts_without_loading_the_others() -> None:
    check = "import sys, tools.cli; tools.cli.run(['--version']); print(*(m for m in sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()
    assert not {"rich", "aiohttp", "lmdb", "uvloop", "tools.up", "asyncio"} & set(loaded)


def test_a_command_that_is_no_command_is_our_bug(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "COMMANDS", {"broken": ("tools.output:Column", "")})
    assert cli.run(["broken"]) == 1
    assert "no click command" in capsys.readouterr().err


def _haystack(*arguments: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.cli", *arguments],
        env={**os.environ, **(environ or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
