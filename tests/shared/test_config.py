"""Settings: every source, their order, and an error that names setting, source and what is allowed."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haystack.config import (
    TABLES,
    Configuration,
    DirectoryOptions,
    StoreSettings,
    UpSettings,
    flag_name,
    settings_of,
    variable_name,
)
from haystack.errors import ConfigError

SECRET = "a" * 64


def write(folder: Path, text: str, mode: int = 0o644) -> Path:
    path = folder / "haystack.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def load(folder: Path, text: str, environ: dict[str, str] | None = None) -> Configuration:
    return Configuration.load(write(folder, text), environ or {})


def test_defaults_are_those_of_the_design() -> None:
    settings = Configuration().with_flags("store", {"data": ("/d",)}).store()
    assert settings == StoreSettings(data=(Path("/d"),))
    limits = {
        "max_photo_bytes": 64 * 2**20,
        "max_volume_bytes": 32 * 2**30,
        "max_header_bytes": 16 * 2**10,
        "max_connections": 4096,
        "header_timeout_seconds": 10.0,
        "idle_timeout_seconds": 75.0,
        "stall_timeout_seconds": 30.0,
        "upload_memory_bytes": 4 * 2**20,
        "upload_memory_total_bytes": 256 * 2**20,
        "stop_timeout_seconds": 20.0,
    }
    assert {name: getattr(settings, name) for name in limits} == limits
    assert (settings.port, settings.effective_admin_port) == (8080, 18080)
    assert settings.worker_count == len(os.sched_getaffinity(0))
    assert Configuration().with_flags("directory", {"data": "/d"}).directory().port == 9333


def test_file_then_environment_then_flag(tmp_path: Path) -> None:
    text = '[store]\ndata = "/file"\nport = 1001\nworkers = 3\nrack = "r1"\n'
    configuration = load(tmp_path, text, {"HAYSTACK_STORE_PORT": "1002", "HAYSTACK_STORE_WORKERS": "4"})
    assert (configuration.store().port, configuration.store().workers, configuration.store().rack) == (1002, 4, "r1")
    settings = configuration.with_flags("store", {"port": "1003", "workers": None, "data": ()}).store()
    assert (settings.port, settings.workers, settings.data) == (1003, 4, (Path("/file"),))


def test_sources_are_told(tmp_path: Path) -> None:
    configuration = load(tmp_path, "[store]\nport = 1\nworkers = 1\n", {"HAYSTACK_STORE_WORKERS": "1"})
    configuration = configuration.with_flags("store", {"rack": "x"})
    assert configuration.source("store", "port") == str(tmp_path / "haystack.toml")
    assert configuration.source("store", "workers") == "environment variable HAYSTACK_STORE_WORKERS"
    assert configuration.source("store", "rack") == "flag --rack"
    assert configuration.source("store", "host") is None


def test_everything_in_one_file(tmp_path: Path) -> None:
    configuration = load(
        tmp_path,
        """
        [cluster]
        directories = ["http://a:9333/", "http://b:9333"]
        secret_file = "keys/secret"
        [directory]
        data = "dir"
        max_volume_bytes = "1GiB"
        heartbeat_seconds = "500ms"
        [store]
        data = ["disk1", "/mnt/disk2", "~/disk3"]
        durability = "os"
        max_photo_bytes = "8MiB"
        idle_timeout_seconds = 5
        public_url = "photos.example.org:443"
        [up]
        data = "all"
        stores = 3
        """,
    )
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/secret").write_text(SECRET + "\n")
    (tmp_path / "keys/secret").chmod(0o600)
    store = configuration.store()
    assert store.data == (tmp_path / "disk1", Path("/mnt/disk2"), Path("~/disk3").expanduser())
    assert store.directories == ("http://a:9333", "http://b:9333")
    assert store.secret == SECRET.encode()
    assert (store.durability, store.max_photo_bytes, store.idle_timeout_seconds) == ("os", 8 * 2**20, 5.0)
    assert configuration.directory() == DirectoryOptions(
        data=tmp_path / "dir", max_volume_bytes=2**30, heartbeat_seconds=0.5
    )
    assert configuration.up() == UpSettings(data=tmp_path / "all", stores=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[store]\nprot = 1", r"haystack.toml: unknown setting store.prot; did you mean port\?"),
        ("[store]\nxyzzy = 1", r"unknown setting store.xyzzy; known: admin_port, compact_bytes_per_second, data, "),
        ("[stroe]\nport = 1", r"haystack.toml: unknown table or setting 'stroe'; did you mean store\?"),
        ("port = 1", r"unknown table or setting 'port'"),
        ("store = 1", r"store must be a table, written as \[store\]"),
        ("[store]\nport = '80x'", r"haystack.toml: store.port: '80x': .*expected a whole number from 0 to 65535"),
        ("[store]\nport = 65536", r"store.port: 65536: too large; expected"),
        ("[store]\nport = -1", r"store.port: -1: too small"),
        ("[store]\nport = true", r"store.port: True: not a whole number"),
        ("[store]\nport = 80.0", r"store.port: 80.0: not a whole number"),
        (
            "[store]\nmax_photo_bytes = '64M'",
            r"store.max_photo_bytes: '64M': unknown unit 'M'; expected a size from 1 to",
        ),
        ("[store]\nmax_photo_bytes = '4GiB'", r"too large; expected a size from 1 to 4294967295"),
        ("[store]\nmax_volume_bytes = '9TiB'", r"store.max_volume_bytes: '9TiB': too large; .*8TiB"),
        ("[store]\nmax_photo_bytes = true", r"not a size"),
        ("[store]\nidle_timeout_seconds = 'soon'", r"store.idle_timeout_seconds: 'soon': .*a number with ms, s, m"),
        ("[store]\nidle_timeout_seconds = nan", r"not a finite number"),
        ("[store]\nidle_timeout_seconds = inf", r"not a finite number"),
        (f"[store]\nidle_timeout_seconds = 1{'0' * 400}", r"too large"),  # no float is that large
        ("[store]\nidle_timeout_seconds = 0", r"too small"),
        ("[store]\nidle_timeout_seconds = []", r"not a duration"),
        ("[store]\ndurability = 'fast'", r"store.durability: 'fast': no such choice; expected fsync or os"),
        ("[store]\ndurability = 1", r"expected fsync or os"),
        ("[store]\nhost = 'a b'", r"store.host: 'a b': not a host name or address"),
        ("[store]\nhost = 'http://a'", r"expected a host name or an IP address"),
        ("[store]\nrack = ''", r"store.rack: ''"),
        ('[store]\nrack = "a\\nb"', r"store.rack"),
        ("[store]\ndata = 7", r"store.data: 7: not a list; expected a path"),
        ("[store]\ndata = ['a', 7]", r"not a path"),
        ("[store]\ndata = ['a', 'a']", r"one is named twice"),
        ("[store]\ndata = ''", r"not a path"),
        ("[store]\npublic_url = 'a:1/x'", r"store.public_url: 'a:1/x': has more than host and port"),
        ("[cluster]\ndirectories = 'a:9333'", r"cluster.directories: 'a:9333': not an address that begins with http"),
        ("[cluster]\ndirectories = 'http://u:p@a'", r"more than host and port"),
        ("[cluster]\ndirectories = 'http://a:99999'", r"cluster.directories"),
        ("[cluster]\ndirectories = 'http://a:0'", r"port 0"),
        ("[cluster]\ndirectories = 'http://a/x'", r"more than host and port"),
        ("[store\n", r"haystack.toml: not valid TOML"),
        ("[store]\nport = 1\nport = 2", r"not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path, text)
    assert "haystack.toml" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("HAYSTACK_STORE_PORT", "x", r"environment variable HAYSTACK_STORE_PORT: store.port: 'x'"),
        ("HAYSTACK_STORE_PORT", "", r"HAYSTACK_STORE_PORT: store.port: ''"),
        ("HAYSTACK_STORE_PRT", "1", r"HAYSTACK_STORE_PRT: no such setting; did you mean HAYSTACK_STORE_PORT\?"),
        ("HAYSTACK_", "1", r"HAYSTACK_: no such setting"),
        ("HAYSTACK_DIRECTORY", "nonsense", r"HAYSTACK_DIRECTORY: cluster.directories: 'nonsense'"),
        ("HAYSTACK_CLUSTER_SECRET", SECRET, r"did you mean HAYSTACK_"),
    ],
)
def test_a_wrong_environment_is_refused_by_name(name: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Configuration.load(None, {name: value})


def test_other_variables_are_left_alone() -> None:
    Configuration.load(None, {"PATH": "x", "HAYSTACK_DEBUG": "1", "HAYSTACK_CONFIG": "x", "_HAYSTACK_COMPLETE": "x"})


def test_a_wrong_flag_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"flag --max-photo-bytes: store.max_photo_bytes: 'big'"):
        Configuration().with_flags("store", {"max_photo_bytes": "big"})
    with pytest.raises(ConfigError, match=r"flag --directory: cluster.directories"):
        Configuration().with_flags("cluster", {"directories": "x"})


def test_a_missing_setting_names_all_its_places() -> None:
    with pytest.raises(
        ConfigError, match=r"store.data is not set: give --data, HAYSTACK_STORE_DATA or data in table \[store\]"
    ):
        Configuration().store()


def test_lists_from_environment_and_flags() -> None:
    configuration = Configuration.load(
        None, {"HAYSTACK_STORE_DATA": "/a, /b", "HAYSTACK_DIRECTORY": "http://a,https://b:1/"}
    )
    assert configuration.store().data == (Path("/a"), Path("/b"))
    assert configuration.directories() == ("http://a", "https://b:1")
    assert configuration.with_flags("store", {"data": ("c", "d")}).store().data == (Path("c"), Path("d"))


@pytest.mark.parametrize(
    "url", ["http://localhost:9333", "http://10.0.0.1", "http://[::1]:9333", "https://a.b-c.example"]
)
def test_addresses(url: str) -> None:
    assert Configuration.load(None, {"HAYSTACK_DIRECTORY": url}).directories() == (url,)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "::1", "localhost", "a.b-c.example", "node_1"])
def test_hosts(host: str) -> None:
    assert StoreSettings(data=(Path("/d"),), host=host).host == host


class TestSecret:
    def test_none(self) -> None:
        assert Configuration().secret() is None

    def test_from_the_environment(self) -> None:
        assert Configuration.load(None, {"HAYSTACK_SECRET": SECRET}).secret() == SECRET.encode()

    def test_in_a_private_file(self, tmp_path: Path) -> None:
        path = write(tmp_path, f"[cluster]\nsecret = '{SECRET}'", 0o600)
        assert Configuration.load(path, {}).secret() == SECRET.encode()

    def test_in_a_file_that_others_read(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="other users can read it; run: chmod 600"):
            load(tmp_path, f"[cluster]\nsecret = '{SECRET}'")

    def test_later_sources_win(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("b" * 64)
        (tmp_path / "secret").chmod(0o600)
        configuration = load(tmp_path, "[cluster]\nsecret_file = 'secret'")
        assert configuration.secret() == b"b" * 64
        configuration = load(tmp_path, "[cluster]\nsecret_file = 'secret'", {"HAYSTACK_SECRET": SECRET})
        assert configuration.secret() == SECRET.encode()
        flags = {"secret_file": str(tmp_path / "secret")}
        assert configuration.with_flags("cluster", flags).secret() == b"b" * 64

    def test_two_from_one_source_contradict(self) -> None:
        environ = {"HAYSTACK_SECRET": SECRET, "HAYSTACK_SECRET_FILE": "/x"}
        with pytest.raises(ConfigError, match=r"HAYSTACK_SECRET\).*HAYSTACK_SECRET_FILE\): set only one"):
            Configuration.load(None, environ).secret()

    def test_too_short(self) -> None:
        with pytest.raises(ConfigError, match=r"HAYSTACK_SECRET\): holds 5 bytes") as caught:
            Configuration.load(None, {"HAYSTACK_SECRET": "tiger"}).secret()
        assert "tiger" not in str(caught.value)

    def test_is_never_shown(self) -> None:
        with pytest.raises(ConfigError) as caught:
            Configuration.load(None, {"HAYSTACK_SECRET": "hidden\n" * 5})
        assert "hidden" not in str(caught.value)
        assert "hush" not in repr(StoreSettings(data=(Path("/d"),), secret=b"hush" * 16))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data": ()}, "store.data: at least one"),
        ({"port": 60_000}, "store.admin_port: port 60000"),
        ({"admin_port": 8080}, "store.admin_port: 8080 is the data path's port"),
        ({"port": 70_000}, "store.port: 70000: too large"),
        ({"max_volume_bytes": 2**20}, "store.max_photo_bytes: 67108864 must be smaller than max_volume_bytes"),
        ({"upload_memory_total_bytes": 2**20}, "store.upload_memory_bytes: 4194304 is more than"),
        ({"durability": "never"}, "store.durability: 'never'"),
        ({"idle_timeout_seconds": float("nan")}, "store.idle_timeout_seconds"),
        ({"workers": 0}, "store.workers: 0: too small"),
    ],
)
def test_settings_made_in_python_are_checked(values: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"data": (Path("/d"),)} | values
    with pytest.raises(ConfigError, match=message):
        StoreSettings(**arguments)  # type: ignore[arg-type]  # wrong values are the point


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"peers_index": 1}, "directory.peers_index: 1 must be smaller than peers_count"),
        ({"dead_after_seconds": 0.5}, "directory.dead_after_seconds: 0.5 must be larger than heartbeat_seconds"),
    ],
)
def test_contradictions_of_the_directory(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DirectoryOptions(data=Path("/d"), **values)  # type: ignore[arg-type]  # wrong values are the point


def test_free_ports() -> None:
    assert StoreSettings(data=(Path("/d"),), port=0).effective_admin_port == 0
    assert StoreSettings(data=(Path("/d"),), port=60_000, admin_port=1).effective_admin_port == 1


def test_an_unreadable_or_huge_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere.toml: cannot be read: No such file"):
        Configuration.load(tmp_path / "nowhere.toml", {})
    with pytest.raises(ConfigError, match="larger than"):
        load(tmp_path, "#" * (2**20 + 1))
    (tmp_path / "latin.toml").write_bytes(b"# \xe9\n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        Configuration.load(tmp_path / "latin.toml", {})


def test_names_are_distinct_and_defaults_allowed() -> None:
    names = [(variable_name(table, key), table, key) for table in TABLES for key, *_ in settings_of(table)]
    assert len({name for name, *_ in names}) == len(names)
    for table in TABLES:
        flags = [flag_name(table, key) for key, *_ in settings_of(table)]
        assert len(set(flags)) == len(flags)
        for _, kind, help_text, default in settings_of(table):
            assert help_text.endswith((".", "]."))
            if default not in (None, dataclasses.MISSING, ()):
                kind.check(default)


@given(st.text(max_size=30), st.sampled_from([(table, key) for table in TABLES for key, *_ in settings_of(table)]))
def test_any_text_is_taken_or_refused_as_config_error(text: str, place: tuple[str, str]) -> None:
    try:
        Configuration.load(None, {variable_name(*place): text})
    except ConfigError as error:
        assert f"{place[0]}.{place[1]}" in str(error)
