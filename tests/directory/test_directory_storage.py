"""Both backends against the contract, and what is particular to LMDB."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest
from memory_storage import MemoryStorage
from storage_contract import StorageContract, version_of

from directory.errors import StorageConflict
from directory.storage import transactions
from directory.storage.interface import Put, Storage, Table
from directory.storage.lmdb_storage import LMDB_ENGINE, LmdbStorage
from directory.storage.tables import FORMAT_VERSION, META_FORMAT
from haystack.errors import DiskError, FolderError, OutOfSpace

COMMITTER = """
import sys
from pathlib import Path
from directory.storage.lmdb_storage import LMDB_ENGINE, LmdbStorage
from directory.storage.interface import Put, Table

storage = LmdbStorage(Path(sys.argv[1]))
number = (stored := storage.get(Table.META, b"n")) and stored.value or 0
while True:
    number += 1
    changes = []
    for table, key in ((Table.META, b"n"), (Table.CONFIRMED, b"n")):
        stored = storage.get(table, key)
        changes.append(Put(table, key, stored.version if stored else 0, number))
    changes.append(Put(Table.PHOTOS, number.to_bytes(8, "big"), 0, b"x" * 3000))
    storage.commit(changes)
    print(number, flush=True)
"""


class TestLmdbStorage(StorageContract):
    def open(self, folder: Path) -> Storage:
        return LmdbStorage(folder / "db")

    def restore(self, file: Path, folder: Path) -> Storage:
        file.rename(folder / "db")
        return LmdbStorage(folder / "db")


class TestLmdbStorageWithASmallMap(StorageContract):
    """The map is full all the time, and grows below every test."""

    def open(self, folder: Path) -> Storage:
        return LmdbStorage(folder / "db", map_bytes=64 * 1024)

    def restore(self, file: Path, folder: Path) -> Storage:
        file.rename(folder / "db")
        return LmdbStorage(folder / "db", map_bytes=64 * 1024)


class TestMemoryStorage(StorageContract):
    survives_reopening = False

    def open(self, folder: Path) -> Storage:
        return MemoryStorage()

    def restore(self, file: Path, folder: Path) -> Storage:
        return MemoryStorage.restored(file)


def test_the_map_grows_with_what_is_stored(tmp_path: Path) -> None:
    storage = LmdbStorage(tmp_path / "db", map_bytes=64 * 1024)
    for number in range(20):
        storage.commit([Put(Table.PHOTOS, number.to_bytes(8, "big"), 0, b"x" * 100_000)])
    assert storage.count(Table.PHOTOS) == 20
    storage.close()
    storage = LmdbStorage(tmp_path / "db", map_bytes=64 * 1024)  # less than what the file holds
    storage.commit([Put(Table.PHOTOS, b"more", 0, b"x" * 1_000_000)])
    assert storage.count(Table.PHOTOS) == 21
    storage.close()


def test_kill_9_in_the_midst_of_commits_loses_nothing_that_was_committed(tmp_path: Path) -> None:
    path = tmp_path / "db"
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", COMMITTER, str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(25):
            acknowledged = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split()
        process.stdout.close()
        process.wait()
        acknowledged = int(rest[-1]) if rest else acknowledged
        storage = LmdbStorage(path)
        first, second = storage.get(Table.META, b"n"), storage.get(Table.CONFIRMED, b"n")
        assert first is not None and second is not None
        assert first.value == second.value == storage.count(Table.PHOTOS)
        assert acknowledged <= first.value <= acknowledged + 1
        storage.close()


def test_a_file_of_an_older_release_lacks_tables_and_is_read_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "db"
    environment = lmdb.Environment(str(path), subdir=False, max_dbs=3, lib_version=LMDB_ENGINE)
    environment.open_db(Table.META.value.encode())
    environment.close()
    storage = LmdbStorage(path, readonly=True)
    assert storage.get(Table.MOVES, b"k") is None
    assert storage.scan(Table.MOVES, limit=1) == [] and storage.count(Table.MOVES) == 0
    storage.close()


def test_rubbish_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "db"
    path.write_bytes(os.urandom(8192))
    with pytest.raises(FolderError, match=str(path)):
        LmdbStorage(path)
    with pytest.raises(FolderError, match="nowhere"):
        LmdbStorage(tmp_path / "nowhere" / "db")


def test_a_closed_storage_says_so(tmp_path: Path) -> None:
    storage = LmdbStorage(tmp_path / "db")
    storage.close()
    for call in (
        lambda: storage.get(Table.META, b"k"),
        lambda: storage.scan(Table.META, limit=1),
        lambda: storage.count(Table.META),
        lambda: storage.commit([Put(Table.META, b"k", 0, 1)]),
    ):
        with pytest.raises(DiskError, match="closed"):
            call()


class FailingEnvironment:
    """Stands for the LMDB environment when the disk refuses to write."""

    def __init__(self, error: lmdb.Error) -> None:
        self._error = error

    def begin(self, **_: object) -> object:
        raise self._error

    def close(self) -> None:
        pass


class FakeError(lmdb.Error):
    code = 0


def failing(tmp_path: Path, code: int) -> LmdbStorage:
    storage = LmdbStorage(tmp_path / "db")
    storage._env.close()
    error = FakeError("mdb_txn_commit")
    error.code = code
    storage._env = FailingEnvironment(error)
    return storage


def test_a_full_disk_can_be_tried_again(tmp_path: Path) -> None:
    storage = failing(tmp_path, errno.ENOSPC)
    for _ in range(2):
        with pytest.raises(OutOfSpace, match="disk is full"):
            storage.commit([Put(Table.META, b"k", 0, 1)])
    assert storage.failure is None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_was_full_goes_on_when_there_is_space(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(600_000))
    storage = LmdbStorage(small_disk / "db")
    committed = 0
    with pytest.raises(OutOfSpace, match="disk is full"):
        while True:
            storage.commit([Put(Table.PHOTOS, b"%d" % committed, 0, bytes(20_000))])
            committed += 1
    assert storage.count(Table.PHOTOS) == committed > 0
    ballast.unlink()
    storage.commit([Put(Table.PHOTOS, b"%d" % committed, 0, bytes(20_000))])
    assert storage.count(Table.PHOTOS) == committed + 1
    storage.close()


def test_after_an_io_error_nothing_is_written_any_more(tmp_path: Path) -> None:
    storage = failing(tmp_path, errno.EIO)
    with pytest.raises(DiskError, match="restart the Directory"):
        storage.commit([Put(Table.META, b"k", 0, 1)])
    assert storage.failure is not None
    storage._env = FailingEnvironment(AssertionError("written again"))  # type: ignore[arg-type]  # must not be reached
    with pytest.raises(DiskError, match="restart the Directory"):
        storage.commit([Put(Table.META, b"k", 0, 1)])


def test_a_conflict_is_no_failure(tmp_path: Path) -> None:
    storage = LmdbStorage(tmp_path / "db")
    with pytest.raises(StorageConflict):
        storage.commit([Put(Table.META, b"k", 5, 1)])
    storage.commit([Put(Table.META, b"k", 0, 1)])
    assert storage.failure is None
    assert version_of(storage, Table.META, b"k") > 0
    storage.close()


def test_a_storage_of_the_first_format_is_taken_over(tmp_path: Path) -> None:
    storage = LmdbStorage(tmp_path / "db")
    cluster_id = transactions.prepare(storage)
    stored = storage.get(Table.META, META_FORMAT)
    assert stored is not None and stored.value == FORMAT_VERSION
    storage.commit([Put(Table.META, META_FORMAT, stored.version, 1)])
    assert transactions.prepare(storage) == cluster_id
    known = storage.get(Table.META, META_FORMAT)
    assert known is not None and known.value == FORMAT_VERSION
    storage.commit([Put(Table.META, META_FORMAT, known.version, FORMAT_VERSION + 1)])
    with pytest.raises(FolderError, match="use the release"):
        transactions.prepare(storage)
    storage.close()
