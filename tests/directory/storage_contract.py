"""What every storage backend of the Directory must do. A backend's test inherits :class:`StorageContract`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from directory.errors import StorageConflict
from directory.storage.interface import Check, Delete, Draft, Put, Storage, Table, scan_all

KEYS = [b"a", b"b", b"ba", b"\x00", b"\xff\xff", b"a\x00"]


def version_of(storage: Storage, table: Table, key: bytes) -> int:
    stored = storage.get(table, key)
    return stored.version if stored else 0


class StorageContract:
    """Inherit and define :meth:`open`, which opens the storage of a folder, with what was committed there before."""

    survives_reopening = True

    def open(self, folder: Path) -> Storage:
        raise NotImplementedError

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[Storage]:
        storage = self.open(tmp_path)
        yield storage
        storage.close()

    def test_what_is_not_there_is_none(self, storage: Storage) -> None:
        assert storage.get(Table.PHOTOS, b"x") is None
        assert storage.scan(Table.PHOTOS, limit=10) == []
        assert storage.count(Table.PHOTOS) == 0
        assert storage.failure is None

    @pytest.mark.parametrize(
        "value",
        [0, 2**64 - 1, -1, True, "text ü", b"\x00bytes", [], [1, [2, "x"]], {"a": 1}, {0: [1], 4294967295: [2]}, {}],
    )
    def test_values_come_back(self, storage: Storage, value: object) -> None:
        storage.commit([Put(Table.META, b"key", 0, value)])
        stored = storage.get(Table.META, b"key")
        assert stored is not None
        assert stored.value == value
        assert stored.version > 0

    def restore(self, file: Path, folder: Path) -> Storage:
        """Open what :meth:`Storage.backup` wrote."""
        raise NotImplementedError

    def test_a_backup_is_of_one_moment_while_commits_go_on(self, storage: Storage, tmp_path: Path) -> None:
        for number in range(200):
            changes = [Put(table, number.to_bytes(8, "big"), 0, [number, "x" * 500]) for table in Table]
            storage.commit(changes)
        ended = threading.Event()

        def write() -> None:
            number = 200
            while not ended.is_set():
                storage.commit([Put(table, number.to_bytes(8, "big"), 0, number) for table in Table])
                number += 1

        writer = threading.Thread(target=write)
        if self.survives_reopening:  # else it is in memory, and for one thread
            writer.start()
        file = tmp_path / "backup"
        try:
            with file.open("wb") as target:
                storage.backup(target)
        finally:
            ended.set()
            if writer.ident is not None:
                writer.join()
        folder = tmp_path / "restored"
        folder.mkdir()
        restored = self.restore(file, folder)
        counts = {restored.count(table) for table in Table}
        assert len(counts) == 1 and counts.pop() >= 200  # no commit is there in part
        assert scan_all(restored, Table.PHOTOS)[:200] == scan_all(storage, Table.PHOTOS)[:200]
        version = version_of(restored, Table.PHOTOS, bytes(8))
        restored.commit([Put(Table.PHOTOS, bytes(8), version, "changed")])
        assert version_of(restored, Table.PHOTOS, bytes(8)) > version
        restored.close()

    def test_tables_are_apart(self, storage: Storage) -> None:
        storage.commit([Put(table, b"same", 0, table.value) for table in Table])
        for table in Table:
            stored = storage.get(table, b"same")
            assert stored is not None and stored.value == table.value
            assert storage.count(table) == 1

    def test_a_put_that_expects_nothing_refuses_to_overwrite(self, storage: Storage) -> None:
        storage.commit([Put(Table.META, b"k", 0, 1)])
        with pytest.raises(StorageConflict):
            storage.commit([Put(Table.META, b"k", 0, 2)])
        stored = storage.get(Table.META, b"k")
        assert stored is not None and stored.value == 1

    def test_an_old_version_is_refused(self, storage: Storage) -> None:
        storage.commit([Put(Table.META, b"k", 0, 1)])
        old = version_of(storage, Table.META, b"k")
        storage.commit([Put(Table.META, b"k", old, 2)])
        for change in (Put(Table.META, b"k", old, 3), Delete(Table.META, b"k", old), Check(Table.META, b"k", old)):
            with pytest.raises(StorageConflict):
                storage.commit([change])
        stored = storage.get(Table.META, b"k")
        assert stored is not None and stored.value == 2

    def test_a_version_is_never_used_twice_for_a_key(self, storage: Storage) -> None:
        seen = set()
        for _ in range(5):
            storage.commit([Put(Table.META, b"k", 0, "v")])
            version = version_of(storage, Table.META, b"k")
            assert version not in seen
            seen.add(version)
            storage.commit([Delete(Table.META, b"k", version)])
            assert storage.get(Table.META, b"k") is None
            with pytest.raises(StorageConflict):
                storage.commit([Put(Table.META, b"k", version, "ghost")])

    def test_one_conflict_undoes_the_whole_commit(self, storage: Storage) -> None:
        storage.commit([Put(Table.META, b"there", 0, 1)])
        version = version_of(storage, Table.META, b"there")
        with pytest.raises(StorageConflict):
            storage.commit(
                [
                    Put(Table.PHOTOS, b"new", 0, 1),
                    Delete(Table.META, b"there", version),
                    Check(Table.VOLUMES, b"missing", 7),
                ]
            )
        assert storage.get(Table.PHOTOS, b"new") is None
        assert version_of(storage, Table.META, b"there") == version

    def test_a_check_of_nothing_holds_while_nothing_is_there(self, storage: Storage) -> None:
        storage.commit([Check(Table.META, b"k", 0), Put(Table.META, b"other", 0, 1)])
        with pytest.raises(StorageConflict):
            storage.commit([Check(Table.META, b"other", 0)])

    def test_scans_are_ordered_by_bytes_and_paged(self, storage: Storage) -> None:
        storage.commit([Put(Table.VOLUMES, key, 0, key) for key in KEYS])
        assert [key for key, _ in storage.scan(Table.VOLUMES, limit=100)] == sorted(KEYS)
        assert [key for key, _ in storage.scan(Table.VOLUMES, after=b"a", limit=2)] == [b"a\x00", b"b"]
        assert storage.scan(Table.VOLUMES, after=b"\xff\xff", limit=2) == []
        assert [key for key, _ in scan_all(storage, Table.VOLUMES, page=2)] == sorted(KEYS)
        assert all(stored.value == key for key, stored in scan_all(storage, Table.VOLUMES, page=4))

    def test_reads_and_commits_of_two_threads(self, storage: Storage) -> None:
        storage.commit([Put(Table.META, b"a", 0, 0), Put(Table.META, b"b", 0, 0)])
        done = threading.Event()
        wrong: list[object] = []

        def read() -> None:
            while not done.is_set():
                first, second = storage.get(Table.META, b"a"), storage.get(Table.META, b"b")
                if first is None or second is None or second.value < first.value:
                    wrong.append((first, second))

        reader = threading.Thread(target=read)
        reader.start()
        try:
            for number in range(1, 100):
                changes = [Put(Table.META, key, version_of(storage, Table.META, key), number) for key in (b"a", b"b")]
                storage.commit(changes)
        finally:
            done.set()
            reader.join()
        assert wrong == []

    def test_commits_outlive_the_storage_object(self, tmp_path: Path) -> None:
        if not self.survives_reopening:
            pytest.skip("this backend keeps nothing")
        storage = self.open(tmp_path)
        storage.commit([Put(Table.PHOTOS, b"k", 0, [1, 2])])
        version = version_of(storage, Table.PHOTOS, b"k")
        storage.close()
        storage.close()
        storage = self.open(tmp_path)
        stored = storage.get(Table.PHOTOS, b"k")
        assert stored is not None and stored.value == [1, 2] and stored.version == version
        storage.commit([Delete(Table.PHOTOS, b"k", version), Put(Table.PHOTOS, b"l", 0, 1)])
        assert version_of(storage, Table.PHOTOS, b"l") > version
        storage.close()

    def test_a_draft_writes_what_was_decided(self, storage: Storage) -> None:
        storage.commit([Put(Table.META, b"old", 0, 1), Put(Table.META, b"read", 0, 2)])
        draft = Draft(storage)
        upper = Draft(storage, draft)
        assert upper.get(Table.META, b"read") == 2
        upper.put(Table.META, b"new", [3])
        upper.delete(Table.META, b"old")
        upper.delete(Table.META, b"never there")
        assert upper.get(Table.META, b"new") == [3]
        assert draft.get(Table.META, b"new") is None
        upper.merge()
        assert draft.get(Table.META, b"old") is None
        assert storage.get(Table.META, b"new") is None
        storage.commit(draft.changes())
        assert storage.get(Table.META, b"old") is None
        stored = storage.get(Table.META, b"new")
        assert stored is not None and stored.value == [3]

    @pytest.mark.parametrize("key", [b"read", b"written", b"deleted", b"absent"])
    def test_a_draft_conflicts_with_any_change_of_what_it_saw(self, storage: Storage, key: bytes) -> None:
        storage.commit([Put(Table.META, name, 0, 1) for name in (b"read", b"written", b"deleted")])
        draft = Draft(storage)
        draft.get(Table.META, b"read")
        draft.get(Table.META, b"absent")
        draft.put(Table.META, b"written", 2)
        draft.delete(Table.META, b"deleted")
        storage.commit([Put(Table.META, key, version_of(storage, Table.META, key), "meanwhile")])
        with pytest.raises(StorageConflict):
            storage.commit(draft.changes())

    def test_a_draft_that_only_read_has_nothing_to_commit(self, storage: Storage) -> None:
        draft = Draft(storage)
        draft.get(Table.META, b"k")
        assert draft.changes() == []

    def test_it_behaves_like_a_dictionary(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        contract = self

        class Model(RuleBasedStateMachine):
            """Random commits, right and wrong ones, beside a dictionary."""

            def __init__(self) -> None:
                super().__init__()
                self.folder = tmp_path_factory.mktemp("model")
                self.storage = contract.open(self.folder)
                self.model: dict[tuple[Table, bytes], object] = {}

            def teardown(self) -> None:
                self.storage.close()

            @rule(
                table=st.sampled_from([Table.META, Table.PHOTOS]),
                changes=st.dictionaries(st.sampled_from(KEYS), st.none() | st.integers(0, 99), min_size=1),
            )
            def commit(self, table: Table, changes: dict[bytes, int | None]) -> None:
                draft = Draft(self.storage)
                for key, value in changes.items():
                    if value is None:
                        draft.delete(table, key)
                        self.model.pop((table, key), None)
                    else:
                        draft.put(table, key, value)
                        self.model[table, key] = value
                self.storage.commit(draft.changes())

            @rule(table=st.sampled_from([Table.META, Table.PHOTOS]), key=st.sampled_from(KEYS), off=st.integers(1, 3))
            def commit_wrongly(self, table: Table, key: bytes, off: int) -> None:
                wrong = version_of(self.storage, table, key) + off
                with pytest.raises(StorageConflict):
                    self.storage.commit(
                        [Put(table, b"other", version_of(self.storage, table, b"other"), 0), Put(table, key, wrong, 0)]
                    )

            @rule()
            def reopen(self) -> None:
                if contract.survives_reopening:
                    self.storage.close()
                    self.storage = contract.open(self.folder)

            @invariant()
            def same_as_the_model(self) -> None:
                for table in (Table.META, Table.PHOTOS):
                    found = {(table, key): stored.value for key, stored in scan_all(self.storage, table, page=3)}
                    assert found == {place: value for place, value in self.model.items() if place[0] is table}
                    assert self.storage.count(table) == len(found)

        Model.TestCase.settings = hypothesis_settings(max_examples=15, stateful_step_count=15, deadline=None)
        Model.TestCase().runTest()
