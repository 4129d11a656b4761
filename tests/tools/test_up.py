"""`haystack up` as processes: command lines, announcement, signals, refusals; the children are stand-ins."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from haystack.config import Configuration, UpSettings
from haystack.errors import ConfigError
from tools.children import Ready
from tools.layout import Layout
from tools.up import RoleCommands

FOLDER = Path(__file__).parent
DRIVER = f"""
import sys
sys.path.insert(0, {str(FOLDER)!r})
from tools import cli, up

class Standins(up.RoleCommands):
    def _argv(self, name):
        behaviours = self.settings.host.split("-")[1:]
        mine = [one.partition("_")[2] for one in behaviours if one.partition("_")[0] == name]
        return [sys.executable, {str(FOLDER / "standin.py")!r}, name, str(self.settings.data), *mine]
    def directory(self, before):
        return self._argv("directory")
    def store(self, number, before, directory_url):
        return self._argv(f"store{{number}}")
    def cache(self, before, directory_url):
        return self._argv("cache")

up.RoleCommands = Standins
cli.main()
"""


class Up:
    """A running `up` with stand-ins; the host's name carries the misbehaviour of the children."""

    def __init__(self, data: Path, *arguments: str, host: str = "h") -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("HAYSTACK_")}
        self.data = data
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, "up", "--no-frontend", "--data", str(data), "--host", host, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environ,
        )

    def until(self, text: str) -> str:
        assert self.process.stdout is not None
        seen = []
        for line in self.process.stdout:
            seen.append(line)
            if text in line:
                return "".join(seen)
        raise AssertionError(f"no {text!r} in {''.join(seen)}; errors: {self.end()[1]}")

    def until_line(self, wanted: str) -> str:
        assert self.process.stdout is not None
        seen = []
        for line in self.process.stdout:
            seen.append(line)
            if line == wanted:
                return "".join(seen)
        raise AssertionError(f"no line {wanted!r} in {''.join(seen)}; errors: {self.end()[1]}")

    def until_note(self, text: str) -> None:
        assert self.process.stderr is not None
        seen = []
        for line in self.process.stderr:
            seen.append(line)
            if text in line:
                return
        raise AssertionError(f"no {text!r} in {''.join(seen)}")

    def end(self) -> tuple[str, str, int]:
        out, err = self.process.communicate(timeout=60)
        return out, err, self.process.returncode

    def journal(self) -> list[tuple[str, str, int]]:
        rows = [line.split() for line in (self.data / "journal").read_text().splitlines()]
        return [(name, event, int(pid)) for name, event, pid in rows]


@pytest.fixture
def started() -> Iterator[list[Up]]:
    started: list[Up] = []
    yield started
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


def start(started: list[Up], data: Path, *arguments: str, host: str = "h") -> Up:
    started.append(Up(data, *arguments, host=host))
    return started[-1]


def test_it_says_where_all_is_and_what_to_do_next(started: list[Up], tmp_path: Path) -> None:
    up = start(started, tmp_path / "data", "--stores", "2")
    text = up.until("in your browser")
    for expected in (
        f"Haystack is up. Everything is kept in {tmp_path / 'data'}",
        "directory  http://0.0.0.0:1",
        "store1     http://0.0.0.0:1",
        "store2     http://0.0.0.0:1",
        "import --directory http://127.0.0.1:1 ~/Pictures",
        f"status --data {tmp_path / 'data'}",
        "http://127.0.0.1:1/<fid>",
    ):
        assert expected in text
    assert json.loads((tmp_path / "data/up.json").read_text())["directory"] == "http://127.0.0.1:1"
    up.process.send_signal(signal.SIGINT)
    out, err, code = up.end()
    assert (code, out) == (0, "")
    assert "Stopping; Ctrl-C again kills." in err
    assert "store1    | serving" in err
    assert up.journal()[-1][:2] == ("directory", "stopping")
    assert not (tmp_path / "data/up.json").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_stop_it_too(started: list[Up], tmp_path: Path, number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_DFL)  # under nohup it is ignored, and children would inherit that
    try:
        up = start(started, tmp_path)
    finally:
        signal.signal(number, before)
    up.until("in your browser")
    up.process.send_signal(number)
    assert up.end()[2] == 0
    assert [event for _, event, _ in up.journal()].count("stopping") == 3


def test_json(started: list[Up], tmp_path: Path) -> None:
    up = start(started, tmp_path, "--json")
    document = json.loads(up.until_line("}\n"))
    up.process.send_signal(signal.SIGTERM)
    out, _, code = up.end()
    assert (code, out) == (0, "")
    assert document["directory"] == "http://127.0.0.1:1"
    assert [store["url"] for store in document["stores"]] == ["http://127.0.0.1:1"]


def test_a_second_signal_kills(started: list[Up], tmp_path: Path) -> None:
    up = start(started, tmp_path, host="h-store1_deaf-directory_deaf")
    up.until("in your browser")
    up.process.send_signal(signal.SIGINT)
    up.until_note("Stopping")
    up.process.send_signal(signal.SIGINT)
    assert up.end()[2] == 130
    for _, _, pid in up.journal():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_signal_while_starting(started: list[Up], tmp_path: Path) -> None:
    up = start(started, tmp_path, host="h-directory_silent")
    journal = tmp_path / "journal"
    while not (journal.exists() and journal.read_text().endswith("\n")):
        assert up.process.poll() is None
    up.process.send_signal(signal.SIGINT)
    out, _, code = up.end()
    assert (code, out) == (0, "")
    assert [event for _, event, _ in up.journal()] == ["started", "stopping"]


def test_a_role_that_does_not_start_ends_it_with_the_reason(started: list[Up], tmp_path: Path) -> None:
    out, err, code = start(started, tmp_path, host="h-store1_fail").end()
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == (
        "haystack: store1 did not start: it ended with exit code 3; it said: store1: port 8080 is in use"
    )
    assert "Traceback" not in err


def test_a_second_up_in_the_same_folder_is_refused(started: list[Up], tmp_path: Path) -> None:
    up = start(started, tmp_path)
    up.until("in your browser")
    out, err, code = start(started, tmp_path).end()
    assert (code, out) == (1, "")
    assert f"in use by another `haystack up` (process {up.process.pid})" in err
    up.process.send_signal(signal.SIGTERM)
    assert up.end()[2] == 0


def test_when_it_is_killed_no_child_stays_and_it_starts_again(started: list[Up], tmp_path: Path) -> None:
    up = start(started, tmp_path)
    up.until("in your browser")
    pidfds = [os.pidfd_open(pid) for _, event, pid in up.journal() if event == "started"]
    up.process.kill()
    for pidfd in pidfds:
        assert select.select([pidfd], [], [], 30)[0], "a child is still there"
        os.close(pidfd)
    up.end()
    again = start(started, tmp_path)
    again.until("in your browser")
    again.process.send_signal(signal.SIGTERM)
    assert again.end()[2] == 0


def commands(folder: Path, configuration: Configuration | None = None, count: int = 1, **more: object) -> RoleCommands:
    settings = UpSettings(data=folder, **more)  # type: ignore[arg-type]  # any setting
    own = (configuration or Configuration()).secret() is None
    return RoleCommands(settings, count, configuration or Configuration(), config_path=None, own_secret=own)


class TestCommandLines:
    def test_they_show_role_data_and_port_and_no_secret(self) -> None:
        made = commands(Path("/d"), host="10.0.0.1", port_offset=5, workers=2, durability="os")
        assert " ".join(made.directory(None)[1:]) == (
            "-P -m tools.cli directory --data /d/directory --host 10.0.0.1 --port 9338 --secret-file /d/secret "
            "--default-replication 000 --repair-delay-seconds 15s"
        )
        assert " ".join(made.store(2, None, "http://10.0.0.1:9338")[1:]) == (
            "-P -m tools.cli store --data /d/store2 --host 10.0.0.1 --port 8086 --secret-file /d/secret "
            "--directory http://10.0.0.1:9338 --workers 2 --durability os --service intake=10.0.0.1:8306"
        )

    def test_the_photo_service(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
        made = commands(Path("/d"), port_offset=5, count=2)
        assert " ".join(made.frontend(None, "http://d")[1:]) == (
            "-P -m tools.cli frontend --host 127.0.0.1 --port 8005 --secret-file /d/secret "
            "--database sqlite:////d/frontend/photos.db --directory http://d"
        )
        assert " ".join(made.intake(2, None, "http://127.0.0.1:8086", "http://127.0.0.1:8005")[1:]) == (
            "-P -m tools.cli intake --data /d/intake2 --host 127.0.0.1 --port 8306 --secret-file /d/secret "
            "--store 127.0.0.1:8086 --frontend http://127.0.0.1:8005 --image-processes 3"
        )
        assert "--port 41001" in " ".join(made.frontend(Ready("http://127.0.0.1:41001", None, "d"), "http://d"))
        without = commands(Path("/d"), frontend="off")
        assert not without.with_frontend and "--service" not in without.store(1, None, "http://d")

    def test_a_store_tells_of_the_port_that_its_intake_will_have(self) -> None:
        made = commands(Path("/d"), store_port=0, count=2)
        ports = []
        for number in (1, 2):
            argv = made.intake(number, None, "http://127.0.0.1:1", "http://127.0.0.1:2")
            ports.append(argv[argv.index("--port") + 1])
            assert made.store(number, None, "http://d")[-1] == f"intake=127.0.0.1:{ports[-1]}"
        assert "0" not in ports and ports[0] != ports[1]

    def test_a_configured_database_is_left_alone(self) -> None:
        configuration = Configuration.load(None, {"HAYSTACK_FRONTEND_DATABASE": "postgresql://u:secret@h/photos"})
        argv = commands(Path("/d"), configuration).frontend(None, "http://d")
        assert "--database" not in argv and "secret@" not in " ".join(argv)

    def test_the_cache(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
        made = commands(Path("/d"), port_offset=5)
        assert " ".join(made.cache(None, "http://d")[1:]) == (
            "-P -m tools.cli cache --data /d/cache --host 127.0.0.1 --port 8105 --secret-file /d/secret "
            "--admin-port 0 --directory http://d --memory 256MiB --workers 2"
        )
        before = Ready("http://127.0.0.1:41001", "http://127.0.0.1:41002", "/d")
        argv = " ".join(made.cache(before, "http://d"))
        assert "--port 41001" in argv and "--admin-port 41002" in argv
        assert "--port 0 " in " ".join(commands(Path("/d"), store_port=0).cache(None, "http://d"))
        assert "--port 7 " in " ".join(commands(Path("/d"), store_port=0, cache_port=7).cache(None, "http://d"))
        assert made.with_cache and not commands(Path("/d"), cache_memory_bytes=0).with_cache

    def test_what_the_cache_is_configured_to_is_left_alone(self) -> None:
        environ = {"HAYSTACK_CACHE_WORKERS": "3", "HAYSTACK_CACHE_ADMIN_PORT": "9"}
        argv = commands(Path("/d"), Configuration.load(None, environ)).cache(None, "http://d")
        assert not {"--workers", "--admin-port"} & set(argv)

    def test_stores_are_spread_over_racks(self) -> None:
        made = RoleCommands(
            UpSettings(data=Path("/d")),
            3,
            Configuration.load(None, {"HAYSTACK_DIRECTORY_REPAIR_DELAY_SECONDS": "1h"}),
            config_path=None,
            own_secret=True,
            layout=Layout("110", 2, 3),
        )
        assert "--default-replication 110" in " ".join(made.directory(None))
        assert "--repair-delay-seconds" not in made.directory(None)
        assert "--data-center dc2 --rack rack2" in " ".join(made.store(2, None, "http://d"))
        assert "--data-center dc1 --rack rack3" in " ".join(made.store(3, None, "http://d"))

    def test_processors_are_shared(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
        for count, workers in ((1, "8"), (3, "2"), (20, "1")):
            argv = commands(Path("/d"), count=count).store(1, None, "http://d")
            assert argv[argv.index("--workers") + 1] == workers

    def test_a_configured_number_of_workers_is_left_alone(self) -> None:
        configuration = Configuration.load(None, {"HAYSTACK_STORE_WORKERS": "3"})
        assert "--workers" not in commands(Path("/d"), configuration).store(1, None, "http://d")

    def test_a_restart_keeps_the_ports(self) -> None:
        made = commands(Path("/d"), directory_port=0, store_port=0, port_offset=7)
        assert "--port 0 " in " ".join(made.directory(None))
        assert "--port 41000" in " ".join(made.directory(Ready("http://127.0.0.1:41000", None, "/d")))
        argv = made.store(1, Ready("http://127.0.0.1:41001", "http://127.0.0.1:41002", "/d"), "http://d")
        assert "--port 41001" in " ".join(argv)
        assert "--admin-port 41002" in " ".join(argv)

    def test_a_secret_of_the_configuration_is_not_replaced(self) -> None:
        configuration = Configuration.load(None, {"HAYSTACK_SECRET": "s" * 64})
        argv = commands(Path("/d"), configuration).directory(None)
        assert "--secret-file" not in argv
        assert not any("s" * 64 in one for one in argv)


def test_too_few_stores_for_the_copies(started: list[Up], tmp_path: Path) -> None:
    out, err, code = start(started, tmp_path, "--replication", "011", "--stores", "2").end()
    assert (code, out) == (2, "")
    assert err == (
        "haystack: up.stores: 011 (one copy, and 1 on another Store of the rack, 1 in another rack) needs at least 3 "
        "Stores, and there would be 2; give --stores 3 or more, or another --replication\n"
    )
    assert not (tmp_path / "layout.json").exists()


def test_the_replication_brings_its_stores(started: list[Up], tmp_path: Path) -> None:
    up = start(started, tmp_path, "--replication", "010")
    text = up.until("in your browser")
    assert "store2     http://0.0.0.0:1  default, rack2" in text
    assert "Copies of each photo (010): one copy, and 1 in another rack." in text
    up.process.send_signal(signal.SIGTERM)
    assert up.end()[2] == 0
    again = start(started, tmp_path)
    assert "default, rack2" in again.until("in your browser")
    again.process.send_signal(signal.SIGTERM)
    assert again.end()[2] == 0


class TestPlan:
    @pytest.mark.parametrize(
        ("more", "count", "message"),
        [
            ({"directory_port": 8081}, 2, "Directory and store2 would both listen on port 8081"),
            ({"store_port": 56_000}, 1, "store.admin_port: port 56000"),
            ({"port_offset": 60_000}, 1, "too large"),
            ({"cache_port": 8080}, 1, "store1 and cache would both listen on port 8080"),
            ({"frontend_port": 8100}, 1, "cache and frontend would both listen on port 8100"),
            ({"intake_port": 8079}, 2, "store1 and intake2 would both listen on port 8080"),
            ({"cache_memory_bytes": 0, "cache_port": 9333, "directory_port": 9333, "store_port": 9333}, 1, "Directory"),
        ],
    )
    def test_contradictions(self, more: dict[str, object], count: int, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            commands(Path("/d"), count=count, **more).check()

    def test_settings_of_one_store_are_not_for_several(self) -> None:
        configuration = Configuration.load(None, {"HAYSTACK_STORE_PUBLIC_URL": "a:1"})
        commands(Path("/d"), configuration).check()
        with pytest.raises(ConfigError, match=r"HAYSTACK_STORE_PUBLIC_URL: store.public_url is for one Store"):
            commands(Path("/d"), configuration, count=2).check()

    def test_wrong_settings_of_a_role_are_found_before_anything_starts(self) -> None:
        configuration = Configuration.load(None, {"HAYSTACK_DIRECTORY_DEAD_AFTER_SECONDS": "0.5"})
        with pytest.raises(ConfigError, match="dead_after_seconds"):
            commands(Path("/d"), configuration).check()
