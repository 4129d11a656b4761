"""The pure parts of the data path: names, headers, types, bodies, and the catalog's care for open volumes."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import lmdb
import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haystack.errors import DiskError, IndexDamaged, OutOfSpace, VolumeNotFound, VolumeUnavailable
from haystack.fid import Fid
from haystack.store.answers import photo_headers
from haystack.store.catalog import Catalog
from haystack.store.control import ControlBlock
from haystack.store.control_cells import Counter, FolderCell, FolderState, VolumeState
from haystack.store.lanes import Lane, sync_together
from haystack.store.names import MAX_NAME_CHARACTERS, clean_name, name_in_disposition
from haystack.store.photo_types import photo_type
from haystack.store.tally import Tally
from haystack.store.targets import Target, parse_target
from haystack.store.uploads import UploadBody, UploadMemory
from haystack.volume import Delete, NewNeedle, Put, Volume
from haystack.volume.syncs import Syncs

LINES = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\t\x20-\x7e\x80-\xff]*\r\n)*")
ANY_VALUE = st.none() | st.integers(-9, 9) | st.text() | st.binary(max_size=20) | st.dictionaries(st.text(), st.text())


@given(
    st.binary(max_size=60)
    | st.builds(msgpack.packb, st.dictionaries(st.sampled_from("nmpx"), ANY_VALUE, max_size=4))
    | st.builds(
        lambda name, mime, pairs: msgpack.packb({"n": name, "m": mime, "p": pairs}),
        st.text(),
        st.text(),
        st.dictionaries(st.text(), st.text()),
    ),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.booleans(),
)
def test_any_stored_metadata_becomes_valid_headers(raw: bytes, checksum: int, time_ms: int, attachment: bool) -> None:
    lines = photo_headers(raw, checksum, time_ms, attachment=attachment)
    assert LINES.fullmatch(lines), lines
    names = [line.partition(b":")[0].lower() for line in lines.split(b"\r\n")]
    assert len(set(names)) == len(names)
    for name in (b"content-type", b"etag", b"last-modified", b"cache-control"):
        assert names.count(name) == 1


@given(
    st.none()
    | st.text(st.characters(max_codepoint=255))
    | st.builds("x; filename{}={}".format, st.sampled_from(["", "*"]), st.text(st.characters(max_codepoint=255)))
)
def test_any_disposition_gives_a_harmless_name(disposition: str | None) -> None:
    name = name_in_disposition(disposition)
    assert len(name) <= MAX_NAME_CHARACTERS
    assert not re.search(r"[\x00-\x1f\x7f/\\]", name) and name not in (".", "..")
    name.encode()


@pytest.mark.parametrize(
    ("name", "clean"), [("a.jpg", "a.jpg"), ("/", ""), ("a/", ""), ("../..", ""), ("C:\\x\\..", ""), ("a\tb", "a_b")]
)
def test_clean_name(name: str, clean: str) -> None:
    assert clean_name(name) == clean


@given(st.text(), st.text(), st.binary(max_size=40))
def test_any_upload_has_a_type_or_none(declared: str, name: str, head: bytes) -> None:
    assert isinstance(photo_type(declared, name, head), str)


def test_targets() -> None:
    fid = Fid(3, 1, 0x23456789ABCDEF01)
    assert parse_target("/3,0123456789abcdef01") == Target(fid)
    assert parse_target("/3/0123456789abcdef01/x.y.z") == Target(fid)
    assert parse_target("/3@1F40,0123456789abcdef01.jpg") == Target(fid, 0x1F40)


# -- bodies


class Memory:
    """Control block with one worker, and a body."""

    def __init__(self, folder: Path, connection_bytes: int = 1000, total_bytes: int = 1500) -> None:
        self.control = ControlBlock.create(1)
        self.memory = UploadMemory(connection_bytes, total_bytes, Tally(self.control, 0))
        (folder / "tmp").mkdir(exist_ok=True)
        self.folder = folder

    def body(self) -> UploadBody:
        return UploadBody(self.memory, self.folder)

    @property
    def used_bytes(self) -> int:
        return self.control.counter(Counter.UPLOAD_MEMORY_BYTES)


@given(st.lists(st.binary(min_size=1, max_size=400) | st.just(bytes(range(256)) * 300), max_size=30))
def test_a_body_is_what_was_added(pieces: list[bytes]) -> None:
    memory = Memory(Path("/dev/shm"))  # any folder with O_TMPFILE
    body = memory.body()
    for piece in pieces:
        if body.add(piece):
            body.spill()
            body.spilled_to_disk()
        assert memory.used_bytes <= 1000
    whole = b"".join(pieces)
    assert b"".join(body.data()) == whole
    assert (body.size_bytes, body.head) == (len(whole), whole[:32])
    body.close()
    body.close()
    assert memory.used_bytes == 0
    memory.control.close()


def test_bodies_share_the_memory(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    one, two = memory.body(), memory.body()
    assert not one.add(bytes(900))
    assert not two.add(bytes(600))
    assert memory.used_bytes == 1500
    assert one.add(b"x") and two.add(b"x")
    one.close()
    assert memory.used_bytes == 600
    two.close(still_spilling=True)
    assert memory.used_bytes == 600
    two.close()
    assert memory.used_bytes == 0
    memory.control.close()


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, OutOfSpace), (errno.EIO, DiskError)])
def test_a_spill_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    memory = Memory(tmp_path)
    body = memory.body()
    assert body.add(bytes(2000))

    def fail(fd: int, data: bytes) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(kind):
        body.spill()
    monkeypatch.undo()
    body.close()
    assert memory.used_bytes == 0
    memory.control.close()


# -- the catalog


class Fixture:
    """A catalog over one data folder with volume 1."""

    def __init__(self, folder: Path) -> None:
        self.control = ControlBlock.create(1)
        self.owner = Volume.create(folder / "1.vol", 1)
        self.slot = self.control.add_volume(1, 0, VolumeState.WRITABLE, max_bytes=2**30)
        self.lane = Lane(folder, durable=False, deliver=lambda outcomes: None)
        self.catalog = Catalog(self.control, [self.lane], worker=0, synced=False)


@pytest.fixture
def fixture(tmp_path: Path) -> Iterator[Fixture]:
    made = Fixture(tmp_path)
    made.owner.close()  # LMDB opens a file once a process, and a worker is another process than the owner
    yield made
    made.catalog.close()
    made.lane.close()
    made.control.close()


def test_a_volume_that_is_removed_is_closed_when_nobody_uses_it(fixture: Fixture) -> None:
    served = fixture.catalog.get(1)
    assert fixture.catalog.get(1) is served
    epoch = fixture.control.cells[served.epoch_cell]
    served.pin()
    fixture.control.remove_volume(fixture.slot)
    assert fixture.control.cells[served.epoch_cell] != epoch  # cached answers are void
    with pytest.raises(VolumeNotFound):
        fixture.catalog.get(1)
    served.volume.file.pread(1, 0)  # still open for who has it pinned
    served.unpin()
    with pytest.raises(DiskError):
        served.volume.file.pread(1, 0)
    with pytest.raises(VolumeUnavailable):
        served.append([Delete(1, 1, 1)])
    assert fixture.control.state(fixture.slot) is VolumeState.GONE


def test_epochs_of_a_slot_never_repeat(fixture: Fixture) -> None:
    cell = fixture.control.epoch_cell(fixture.slot)
    seen = {fixture.control.cells[cell]}
    served = fixture.catalog.get(1)
    served.append([Put((NewNeedle(1, 1, (b"x",), 1),))])
    assert fixture.control.cells[cell] in seen  # nothing that was answered has become wrong
    for operation in (Put((NewNeedle(1, 1, (b"y",), 1),)), Delete(1, 1, 1)):
        served.append([operation])
        assert fixture.control.cells[cell] not in seen
        seen.add(fixture.control.cells[cell])
    fixture.control.remove_volume(fixture.slot)
    assert fixture.control.cells[cell] not in seen
    seen.add(fixture.control.cells[cell])
    assert fixture.control.add_volume(2, 0, VolumeState.WRITABLE, max_bytes=2**30) == fixture.slot
    assert fixture.control.cells[cell] not in seen


def test_volumes_that_cannot_be_opened(fixture: Fixture, tmp_path: Path) -> None:
    missing = fixture.control.add_volume(2, 0, VolumeState.WRITABLE, max_bytes=2**30)
    with pytest.raises(DiskError):
        fixture.catalog.get(2)
    (tmp_path / "2.vol").write_bytes((tmp_path / "1.vol").read_bytes())
    with pytest.raises(IndexDamaged):
        fixture.catalog.get(2)
    fixture.control.set_state(missing, VolumeState.RECOVERING)
    with pytest.raises(VolumeUnavailable):
        fixture.catalog.get(2)
    fixture.control.cells[fixture.control.folder_cell(0, FolderCell.STATE)] = FolderState.FAILED
    with pytest.raises(VolumeUnavailable, match="folder"):
        fixture.catalog.get(1)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (DiskError("EIO"), VolumeState.FAILED),
        (IndexDamaged("corrupt"), VolumeState.FAILED),
        (OutOfSpace("full"), VolumeState.WRITABLE),
        (VolumeUnavailable("closed"), VolumeState.WRITABLE),
    ],
)
def test_which_errors_set_a_volume_aside(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch, error: Exception, state: VolumeState
) -> None:
    served = fixture.catalog.get(1)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(served.volume, "append", fail)
    with pytest.raises(type(error)):
        served.append([Delete(1, 1, 1)])
    assert served.state is state


@pytest.mark.parametrize(
    ("error", "expected", "state"),
    [
        (lmdb.CorruptedError("x"), IndexDamaged, VolumeState.FAILED),
        (lmdb.PageNotFoundError("x"), IndexDamaged, VolumeState.FAILED),
        (lmdb.ReadersFullError("x"), VolumeUnavailable, VolumeState.WRITABLE),
    ],
)
def test_lmdb_errors_of_reads(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch, error: Exception, expected: type[Exception], state: VolumeState
) -> None:
    served = fixture.catalog.get(1)

    class Failing:
        def begin(self, **_: object) -> None:
            raise error

        def close(self) -> None:
            real.close()

    real = served.volume.index._env
    monkeypatch.setattr(served.volume.index, "_env", Failing())
    with pytest.raises(expected):
        served.find(1, 0)
    assert served.state is state


def test_a_sync_of_several_volumes_that_fails_as_a_whole(fixture: Fixture, tmp_path: Path) -> None:
    Volume.create(tmp_path / "2.vol", 2).close()
    fixture.control.add_volume(2, 0, VolumeState.WRITABLE, max_bytes=2**30)

    class Failing(Syncs):
        def sync(self, fds: Sequence[int]) -> list[int]:
            raise OSError(errno.EINVAL, "io_getevents")

    volumes = [fixture.catalog.get(number) for number in (1, 2)]
    tails = [(one, one.append([Put((NewNeedle(1, 1, (b"x",), 1),))]).tail) for one in volumes]
    problems = sync_together(Failing(), tails)
    assert [type(problem) for problem in problems] == [DiskError, DiskError]
    for served, tail in tails:
        assert served.state is VolumeState.FAILED
        with pytest.raises(VolumeUnavailable):  # and not a lock that nobody gives back
            served.sync(tail)
