"""The index: order, sums, size, and files that are no index of ours."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haystack.errors import IndexDamaged, InvalidRequest, VolumeUnavailable
from haystack.volume import NewNeedle, Put, Volume
from haystack.volume.index import PAGE_BYTES, NeedleIndex, remove_index
from haystack.volume.index_records import DELETED, DELETED_NOW, KEY, STATE_KEY, IndexEntry, IndexState, entry_flags

UUID = bytes(range(16))


def _new(path: Path) -> NeedleIndex:
    return NeedleIndex.create(path, IndexState(UUID, 0, 64))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([1, 2, 255, 256, 2**32, 2**64 - 1]), st.integers(0, 2), st.integers(0, 500)),
        max_size=40,
    ),
)
def test_index_order_and_sums(tmp_path_factory: pytest.TempPathFactory, ops: list[tuple[int, int, int]]) -> None:
    path = tmp_path_factory.mktemp("index") / "1.idx"
    index = _new(path)
    model: dict[tuple[int, int], IndexEntry] = {}
    tail, puts, needles_bytes = 64, 0, 0
    with index.write() as writer:
        for key, alternate, size in ops:
            old = model.get((key, alternate))
            if size % 5 == 4:
                was_live, now = old is not None and not old.deleted, size % 3 == 0
                assert writer.delete(key, alternate, 72, size, now=now) == was_live
                if old is not None:
                    model[key, alternate] = old._replace(
                        flags=old.flags | (DELETED | DELETED_NOW if now else DELETED),
                        deleted_ms=size if was_live else old.deleted_ms,
                    )
                needles_bytes += 72
                continue
            if size % 5 == 3:
                assert writer.undelete(key, alternate, 72, size) == (old is not None and old.in_trash)
                if old is not None and old.in_trash:
                    model[key, alternate] = old._replace(flags=old.flags & ~DELETED, deleted_ms=0)
                needles_bytes += 72
                continue
            entry = IndexEntry(tail, size, size % 3, entry_flags(size % 2, 0))
            tail += entry.total_bytes
            needles_bytes += entry.total_bytes
            puts += 1
            model[key, alternate] = entry
            writer.store(key, alternate, entry, size)
        writer.move_tail(tail)
    state = index.state()
    live = [entry for entry in model.values() if not entry.deleted]
    assert (state.live_count, state.live_bytes) == (len(live), sum(entry.total_bytes for entry in live))
    assert state.live_count + state.deleted_count == puts
    assert state.live_bytes + state.deleted_bytes == needles_bytes
    assert state.tail == tail and index.count() == len(model)
    listed = [((key, alternate), entry) for key, alternate, entry in index.entries()]
    assert listed == sorted(model.items())
    assert all(index.get(*name) == entry for name, entry in model.items())
    index.close()
    again = NeedleIndex(path)
    assert again.state() == state
    again.close()


def test_index_bytes_a_needle_in_order_of_ids(tmp_path: Path) -> None:
    for stride, renditions in ((1, 1), (3, 4)):
        index = _new(tmp_path / f"{stride}.idx")
        count = 0
        for start in range(0, 20_000, 37):  # many small commits, as uploads make them
            with index.write() as writer:
                for number in range(start, start + 37):
                    for alternate in range(renditions):
                        writer.store(1 + number * stride, alternate, IndexEntry(64 + count * 8, 1, 0, 0), 1)
                        count += 1
        assert index.size_bytes() / count <= 40
        index.close()


def test_index_nothing_of_a_failed_block_stays(tmp_path: Path) -> None:
    index = _new(tmp_path / "1.idx")
    with pytest.raises(KeyError), index.write() as writer:
        writer.store(1, 0, IndexEntry(64, 1, 0, 0), 1)
        writer.move_tail(1000)
        raise KeyError
    assert index.get(1) is None and index.state().tail == 64
    with index.write() as writer:  # and the lock is free
        writer.move_tail(72)
    index.close()


def test_index_key_out_of_range_is_the_callers_error(tmp_path: Path) -> None:
    index = _new(tmp_path / "1.idx")
    for key, alternate in ((-1, 0), (2**64, 0), (1, 2**32)):
        with pytest.raises(InvalidRequest):
            index.get(key, alternate)
    index.close()
    with pytest.raises(VolumeUnavailable, match="closed"):
        index.get(1)


def test_index_twice_in_one_process_is_named(tmp_path: Path) -> None:
    index = _new(tmp_path / "1.idx")
    with pytest.raises(VolumeUnavailable, match="open in this process already"):
        NeedleIndex(tmp_path / "1.idx")
    index.close()


def test_index_threads_take_turns(tmp_path: Path) -> None:
    index = _new(tmp_path / "1.idx")

    def work(number: int) -> None:
        for count in range(50):
            with index.write() as writer:
                writer.store(number * 1000 + count, 0, IndexEntry(64, 1, 0, 0), 1)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert index.state().live_count == index.count() == 400
    index.close()


# -- files that are no index of ours. A volume is opened with each in a process of its own: LMDB could take it down.

OPEN = """
import sys
from pathlib import Path
from haystack.volume import Volume
with Volume.open(Path(sys.argv[1])) as volume:
    for key in range(1, 3001):
        assert volume.get(key, key).data == b"%d" % key
    print("rebuilt" if volume.report.rebuilt else "trusted")
"""


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stopped") / "7.vol"
    with Volume.create(path, 7) as volume:
        volume.append([Put((NewNeedle(key, key, (b"%d" % key,), 1),)) for key in range(1, 3001)])
    return path


def _other_engine(path: Path) -> None:
    path.unlink()
    with lmdb.open(str(path), subdir=False, map_size=2**24, lib_version=1) as other, other.begin(write=True) as txn:
        txn.put(STATE_KEY, IndexState(UUID, 0, 64).pack())
    Path(f"{path}-lock").unlink()


def _overwrite(path: Path, offset: int, raw: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(raw)


def _no_state(path: Path) -> None:
    remove_index(path)
    NeedleIndex(path, create=True).close()


def _strange_entry(path: Path) -> None:
    with lmdb.open(str(path), subdir=False, map_size=2**24, lib_version=0) as env, env.begin(write=True) as txn:
        txn.put(STATE_KEY, b"short")


def _newer_version(path: Path) -> None:
    with lmdb.open(str(path), subdir=False, map_size=2**24, lib_version=0) as env, env.begin(write=True) as txn:
        raw = txn.get(STATE_KEY)
        assert raw is not None
        txn.put(STATE_KEY, b"\x09\x00" + raw[2:])


HARM = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "one byte": lambda path: path.write_bytes(b"x"),
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 400),
    "text": lambda path: path.write_text("not a database\n" * 2000),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "zeroed metas": lambda path: _overwrite(path, 0, bytes(2 * PAGE_BYTES)),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "one page short": lambda path: path.write_bytes(path.read_bytes()[:-PAGE_BYTES]),
    "only metas": lambda path: path.write_bytes(path.read_bytes()[: 2 * PAGE_BYTES]),
    "other engine": _other_engine,
    "without state": _no_state,
    "strange state": _strange_entry,
    "newer version": _newer_version,
}


@pytest.mark.parametrize("harm", HARM)
def test_index_that_cannot_be_trusted_is_rebuilt(stopped: Path, tmp_path: Path, harm: str) -> None:
    path = tmp_path / "7.vol"
    for suffix in (".vol", ".idx"):
        path.with_suffix(suffix).write_bytes(stopped.with_suffix(suffix).read_bytes())
    HARM[harm](path.with_suffix(".idx"))
    done = subprocess.run([sys.executable, "-c", OPEN, str(path)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("rebuilt\n", 0), done.stderr


def test_index_zeroed_pages_are_an_error_and_the_next_opening_rebuilds(stopped: Path, tmp_path: Path) -> None:
    pages = stopped.with_suffix(".idx").stat().st_size // PAGE_BYTES
    noticed = 0
    for page in range(2, pages, 5):
        path = tmp_path / f"{page}.vol"
        for suffix in (".vol", ".idx"):
            path.with_suffix(suffix).write_bytes(stopped.with_suffix(suffix).read_bytes())
        _overwrite(path.with_suffix(".idx"), page * PAGE_BYTES, bytes(PAGE_BYTES))
        damaged = False
        with Volume.open(path) as volume:
            for key in range(1, 3001):
                try:
                    assert volume.get(key, key).data == b"%d" % key
                except IndexDamaged:
                    damaged = True
        noticed += damaged
        with Volume.open(path) as volume:
            assert bool(volume.report.rebuilt) == damaged
            assert all(volume.get(key, key).data == b"%d" % key for key in range(1, 3001))
    assert noticed


def test_index_raw_read_is_the_packed_entry(tmp_path: Path) -> None:
    index = _new(tmp_path / "1.idx")
    entry = IndexEntry(2**40, 5, 6, 0)
    with index.write() as writer:
        writer.store(9, 1, entry, 1)
    raw = index.get_raw(KEY.pack(9, 1))
    assert raw is not None and IndexEntry.unpack(raw) == entry
    assert index.get_raw(KEY.pack(9, 2)) is None
    with pytest.raises(IndexDamaged):
        IndexEntry.unpack(b"short")
    index.close()
