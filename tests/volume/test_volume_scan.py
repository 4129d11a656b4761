"""Walking over damage: what is reported, what is found again, what is not taken for a needle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haystack.volume import Damage, ScannedNeedle, Volume, check_volume
from haystack.volume import scan as scan_module
from haystack.volume.files import VolumeFile
from haystack.volume.layout import (
    HEADER_BYTES,
    NEEDLE_MAGIC_BYTES,
    SUPERBLOCK_BYTES,
    NeedleHeader,
    Superblock,
    pack_needle,
)

SEED = 99


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Chunks so small that needles and magics straddle them."""
    monkeypatch.setattr(scan_module, "CHUNK_BYTES", 64)
    monkeypatch.setattr(scan_module, "SMALL_BYTES", 100)
    yield


def _needle(key: int, data: bytes, seed: int = SEED) -> bytes:
    header = NeedleHeader(key, key, 0, len(data), 0, 1)
    return b"".join(bytes(piece) for piece in pack_needle(header, b"", [data], seed)[0])


def _scan(path: Path, raw: bytes, *, verify: bool = True) -> list[ScannedNeedle | Damage]:
    path.write_bytes(bytes(SUPERBLOCK_BYTES) + raw)
    file = VolumeFile(path, readonly=True)
    try:
        return list(scan_module.scan(file, SEED, SUPERBLOCK_BYTES, SUPERBLOCK_BYTES + len(raw), verify=verify))
    finally:
        file.close()


def _lay(needles: list[bytes]) -> list[int]:
    offsets, offset = [], SUPERBLOCK_BYTES
    for needle in needles:
        offsets.append(offset)
        offset += len(needle)
    return [*offsets, offset]


sizes = st.lists(st.integers(0, 400), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(sizes, st.data())
@pytest.mark.usefixtures("small_chunks")
def test_scan_damage_anywhere_costs_only_the_needles_that_it_touches(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("scan") / "v"
    needles = [_needle(key, bytes([key]) * size) for key, size in enumerate(lengths)]
    offsets = _lay(needles)
    raw = bytearray(b"".join(needles))
    start = data.draw(st.integers(0, len(raw) - 1))
    end = data.draw(st.integers(start + 1, min(len(raw), start + 300)))
    raw[start:end] = data.draw(st.binary(min_size=end - start, max_size=end - start))
    whole = {
        at
        for at, needle in zip(offsets, needles, strict=False)
        if raw[at - SUPERBLOCK_BYTES : at - SUPERBLOCK_BYTES + len(needle)] == needle
    }
    found = _scan(path, bytes(raw))
    assert {item.offset for item in found if isinstance(item, ScannedNeedle)} == whole
    position = SUPERBLOCK_BYTES
    for item in found:  # in order and without a gap
        assert item.offset == position
        position = item.end
        if isinstance(item, Damage):
            assert item.offset in offsets and item.end in offsets
    assert position == offsets[-1]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("verify", [True, False])
def test_scan_steps_over_damaged_data_by_the_sound_header(tmp_path: Path, verify: bool) -> None:
    inner = _needle(7, b"a photo that contains a needle of this very volume")
    needles = [_needle(1, b"one"), _needle(2, inner + b"tail"), _needle(3, b"three")]
    offsets = _lay(needles)
    raw = bytearray(b"".join(needles))
    raw[offsets[1] - SUPERBLOCK_BYTES + len(needles[1]) - 20] ^= 1
    found = _scan(tmp_path / "v", bytes(raw), verify=verify)
    assert [item.offset for item in found] == offsets[:3]  # the one inside is not taken
    assert isinstance(found[1], Damage) == verify
    if isinstance(found[1], Damage):
        assert found[1].is_needle and found[1].header is not None and found[1].header.key == 2
        assert "needle 2, alternate 0" in str(found[1])


def test_scan_takes_no_needles_of_another_volume_out_of_a_photo(tmp_path: Path) -> None:
    """Somebody uploads what looks like needles, and later the photo's own header is damaged."""
    alike = b"".join(_needle(key, b"evil" * 9, seed) for key, seed in enumerate((0, 1, SEED + 1, 2**64 - 1)))
    photo = alike + NEEDLE_MAGIC_BYTES * 1000 + Superblock(7, bytes(16), 1).pack()
    path = tmp_path / "7.vol"
    with Volume.create(path, 7) as volume:
        first = volume.put(1, 1, photo)
        volume.put(2, 2, b"behind it")
        size = volume.tail()
    with path.open("r+b") as file:
        file.seek(first.offset)
        file.write(bytes(HEADER_BYTES))
    path.with_suffix(".idx").unlink()
    with Volume.open(path) as volume:
        items = list(volume.scan())
        assert [type(item) for item in items] == [Damage, ScannedNeedle] and items[-1].end == size
        assert volume.state().live_count == 1 and volume.get(2, 2).data == b"behind it"


def test_scan_of_a_file_that_became_shorter_ends_in_damage(tmp_path: Path) -> None:
    path = tmp_path / "7.vol"
    for size in (10, 1000, 300_000):
        with Volume.create(tmp_path / f"{size}.vol", 7) as volume:
            stored = volume.put(1, 1, bytes(size))
            path = tmp_path / f"{size}.vol"
        for cut in (stored.offset + 10, stored.offset + HEADER_BYTES + 3, path.stat().st_size - 5):
            with path.open("r+b") as file:
                file.truncate(cut)
            report = check_volume(path, full=True)
            assert any("its end is missing" in problem for problem in report.problems)
            path.write_bytes(path.read_bytes().ljust(stored.offset + HEADER_BYTES + size + 24, b"\1"))


def test_scan_of_many_false_magics_is_not_slow(tmp_path: Path) -> None:
    """Work is in proportion to the bytes searched, whatever they are."""
    raw = NEEDLE_MAGIC_BYTES * 100_000
    (damage,) = _scan(tmp_path / "v", raw)
    assert damage.end - damage.offset == len(raw)


def test_scan_without_verifying_reads_headers_alone(tmp_path: Path) -> None:
    needles = [_needle(1, bytes(200_000)), _needle(2, b"x")]
    raw = bytearray(b"".join(needles))
    raw[1000] ^= 1
    found = _scan(tmp_path / "v", bytes(raw), verify=False)
    assert [item.header.key for item in found if isinstance(item, ScannedNeedle)] == [1, 2]
