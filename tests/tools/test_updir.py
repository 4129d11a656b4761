"""The folder of `haystack up`: lock, secret, number of Stores, and what is refused."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from haystack.errors import ConfigError, FolderError
from haystack.security import load_secret
from tools.children import Ready
from tools.cluster import Running
from tools.updir import UpFolder

HOLDER = """
import sys
from pathlib import Path
from tools.updir import UpFolder
with UpFolder(Path(sys.argv[1]), note=print) as folder:
    print("held", flush=True)
    sys.stdin.read()
"""
HOLDER_WITH_CHILD = """
import os, subprocess, sys
from pathlib import Path
from tools.updir import UpFolder
with UpFolder(Path(sys.argv[1]), note=print) as folder:
    subprocess.Popen(["cat"], pass_fds=(folder.lock_fd,))
    print("held", flush=True)
    os._exit(0)
"""


def hold(folder: Path, code: str = HOLDER) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def folder(tmp_path: Path, notes: list[str]) -> Iterator[UpFolder]:
    with UpFolder(tmp_path / "data", note=notes.append) as folder:
        yield folder


def test_it_is_made_with_a_secret_for_its_owner_alone(folder: UpFolder) -> None:
    folder.ensure_secret()
    path = folder.path / "secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    secret = load_secret(path)
    folder.ensure_secret()
    assert load_secret(path) == secret
    assert not (folder.path / "secret.new").exists()


def test_a_secret_that_others_read_is_refused(folder: UpFolder) -> None:
    folder.ensure_secret()
    (folder.path / "secret").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        folder.ensure_secret()


def test_a_half_made_secret_is_made_anew(folder: UpFolder) -> None:
    (folder.path / "secret.new").write_text("half")
    folder.ensure_secret()
    assert len(load_secret(folder.path / "secret")) == 64


def test_a_second_up_is_refused_with_the_first_ones_pid(tmp_path: Path, notes: list[str]) -> None:
    with hold(tmp_path) as first:
        with (
            pytest.raises(FolderError, match=rf"in use by another `haystack up` \(process {first.pid}\); stop it"),
            UpFolder(tmp_path, note=notes.append),
        ):
            pass
        assert first.stdin is not None
        first.stdin.close()
    with UpFolder(tmp_path, note=notes.append):
        pass
    assert notes == []


def test_children_of_a_killed_up_are_waited_for(tmp_path: Path, notes: list[str]) -> None:
    with hold(tmp_path, HOLDER_WITH_CHILD) as first:
        first.wait(30)
        assert first.stdin is not None
        stdin = first.stdin

        def note(text: str) -> None:
            notes.append(text)
            stdin.close()  # the child, `cat`, ends now

        with UpFolder(tmp_path, note=note) as folder:
            assert (folder.path / "up.lock").read_text() == f"{os.getpid()}\n"
    assert notes == ["Waiting for the processes of an earlier `haystack up` to stop."]


def test_children_of_a_killed_up_that_stay_are_named(tmp_path: Path, notes: list[str]) -> None:
    with hold(tmp_path, HOLDER_WITH_CHILD) as first:
        first.wait(30)
        with (
            pytest.raises(FolderError, match=r"processes of an earlier `haystack up`; `fuser -v .*up.lock`"),
            UpFolder(tmp_path, note=notes.append, leftover_timeout_seconds=0.2),
        ):
            pass


@pytest.mark.parametrize(
    ("there", "wanted", "count"),
    [([], None, 1), ([], 3, 3), ([1, 2], None, 2), ([1, 2], 2, 2), ([1, 2], 5, 5), ([2], None, 2)],
)
def test_all_stores_that_are_there_are_started(
    folder: UpFolder, there: list[int], wanted: int | None, count: int
) -> None:
    for number in there:
        (folder.path / f"store{number}").mkdir()
    (folder.path / "store-old").mkdir()
    assert folder.store_count(wanted) == count


def test_fewer_stores_than_there_are_is_refused(folder: UpFolder) -> None:
    (folder.path / "store3").mkdir()
    with pytest.raises(ConfigError, match=r"up.stores: 2 wanted, but .* holds 3 Stores.*give --stores 3"):
        folder.store_count(2)


def test_what_runs_is_written_down_while_it_does(folder: UpFolder) -> None:
    stores = (Ready("http://0.0.0.0:2", "http://0.0.0.0:3", "/s"),)
    folder.write_running(Running(Ready("http://0.0.0.0:1", None, "/d"), stores))
    document = json.loads((folder.path / "up.json").read_text())
    assert document["directory"] == "http://127.0.0.1:1"
    assert document["pid"] == os.getpid()
    assert document["stores"] == [{"url": "http://0.0.0.0:2", "admin_url": "http://0.0.0.0:3", "data": "/s"}]
    folder.remove_running()
    folder.remove_running()
    assert not (folder.path / "up.json").exists()


def test_a_path_that_cannot_be_a_folder_is_refused(tmp_path: Path, notes: list[str]) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nothing")):
        with pytest.raises(FolderError, match=f"{path}: .*choose another --data"), UpFolder(path, note=notes.append):
            pass
