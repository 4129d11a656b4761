"""The manifest survives kills, and is refused when it is another one."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.manifest import MAX_PENDING, Entry, Head, Manifest, ManifestError, read_manifest

HEAD = Head("/photos", "cluster-1")


def entry(path: str, size_bytes: int = 1) -> Entry:
    return Entry(path, size_bytes, 1_700_000_000_123_456_789, "0" * 16, "3,01", "e", "http://a/3,01", "2026-11-21")


async def write(path: Path, *entries: Entry, head: Head = HEAD) -> None:
    async with Manifest(path, head) as manifest:
        for one in entries:
            await manifest.add(one)


async def test_what_was_added_is_there(tmp_path: Path) -> None:
    path = tmp_path / "m"
    odd = [entry("a"), entry("ä\n\"b'.jpg"), entry(os.fsdecode(b"not utf-8 \xff.jpg"))]
    await write(path, *odd[:2])
    await write(path, odd[2])
    head, entries = read_manifest(path)
    assert head == HEAD
    assert list(entries) == odd
    async with Manifest(path, HEAD) as manifest:
        assert list(manifest.entries()) == odd


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_cut_at_any_byte_loses_at_most_the_last_lines(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("cut") / "m"
    entries = [entry(f"f{number}") for number in range(5)]
    asyncio.run(write(path, *entries))
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    kept = max(0, whole[:cut].count(b"\n") - 1)
    asyncio.run(write(path, entry("new")))
    assert list(read_manifest(path)[1]) == [*entries[:kept], entry("new")]


async def test_many_entries_do_not_pile_up(tmp_path: Path) -> None:
    entries = [entry(f"f{number}") for number in range(3 * MAX_PENDING)]
    await write(tmp_path / "m", *entries)
    assert list(read_manifest(tmp_path / "m")[1]) == entries


async def test_lines_are_written_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "m"
    async with Manifest(path, HEAD) as manifest:
        await manifest.add(entry("a"))
        async with asyncio.timeout(10):
            while b'"a"' not in path.read_bytes():  # noqa: ASYNC110 - another thread writes it
                await asyncio.sleep(0.001)


async def test_another_cluster_or_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m"
    await write(path, entry("a"))
    for head, words in ((Head("/photos", "cluster-2"), "belongs to cluster"), (Head("/x", "cluster-1"), "folder")):
        with pytest.raises(ManifestError, match=words):
            await write(path, head=head)


async def test_a_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no/m: the manifest cannot be opened: .*--manifest FILE"):
        await write(tmp_path / "no/m")


async def test_two_at_once_are_refused(tmp_path: Path) -> None:
    async with Manifest(tmp_path / "m", HEAD):
        with pytest.raises(ManifestError, match="in use"):
            await write(tmp_path / "m")
    await write(tmp_path / "m")


async def test_damage_is_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "m"
    await write(path, entry("a"), entry("b"))
    lines = path.read_bytes().splitlines(keepends=True)
    for bad in (
        b"nonsense\n",
        b"[]\n",
        b'{"path": "a"}\n',
        json.dumps({**json.loads(lines[1]), "size": True}).encode() + b"\n",
    ):
        path.write_bytes(lines[0] + lines[1] + bad)
        with pytest.raises(ManifestError, match="line 3"):
            list(read_manifest(path)[1])
    for bad in (b"", b"{}\n", b'{"haystackManifest": 2}\n'):
        path.write_bytes(bad)
        with pytest.raises(ManifestError):
            read_manifest(path)


async def test_a_full_disk_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        if b'"fid"' in bytes(data):
            raise OSError(28, "No space left on device")
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(ManifestError, match="No space left on device"):
        await write(tmp_path / "m", *[entry("a")] * (3 * MAX_PENDING))


def test_the_entry_has_what_the_line_has() -> None:
    assert [one.name for one in dataclasses.fields(Entry)][:3] == ["path", "size_bytes", "mtime_ns"]
