"""The format document tells the truth: its example packs to these bytes and unpacks from them, its sizes are ours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from haystack.errors import NeedleNotFound
from haystack.volume import NeedleMeta, Superblock, Volume, layout
from haystack.volume.index_records import KEY, STATE, VALUE
from haystack.volume.layout import Flags, NeedleHeader, check_needle, pack_needle

DOCUMENT = (Path(__file__).parents[2] / "docs" / "format.md").read_text()
EXAMPLE = bytes.fromhex(
    "".join(
        re.findall(
            r"^[0-9a-f]{4}  ((?:[0-9a-f]{2} ){15}[0-9a-f]{2})  ", DOCUMENT[DOCUMENT.index("<!-- example") :], re.M
        )
    )
)

BLOCK = Superblock(7, bytes(range(16)), 1_700_000_000_000)
META = NeedleMeta("a.jpg", "image/jpeg")
PHOTO = NeedleHeader(0x1F5A, 0x0123456789ABCDEF, 0, 5, 22, 1_700_000_000_001, durable_distance=0)
TOMBSTONE = NeedleHeader(
    0x1F5A, 0x0123456789ABCDEF, 0, 0, 0, 1_700_000_000_002, flags=Flags.TOMBSTONE, durable_distance=0
)
UNDELETE = NeedleHeader(
    0x1F5A, 0x0123456789ABCDEF, 0, 0, 0, 1_700_000_000_003, flags=Flags.UNDELETE, durable_distance=0
)
DELETE_NOW = NeedleHeader(
    0x1F5A, 0x0123456789ABCDEF, 0, 0, 0, 1_700_000_000_004, flags=Flags.TOMBSTONE | Flags.NOW, durable_distance=0
)
MARKERS = (TOMBSTONE, UNDELETE, DELETE_NOW)


def _pack(header: NeedleHeader, meta: bytes, data: bytes) -> bytes:
    return b"".join(bytes(piece) for piece in pack_needle(header, meta, [data], BLOCK.seed)[0])


def test_format_example_packs_to_the_bytes() -> None:
    markers = b"".join(_pack(header, b"", b"") for header in MARKERS)
    assert BLOCK.pack() + _pack(PHOTO, META.pack(), b"photo") + markers == EXAMPLE


def test_format_example_unpacks_from_the_bytes() -> None:
    assert Superblock.unpack(EXAMPLE) == BLOCK
    assert BLOCK.seed == 0x0706050403020100
    assert NeedleHeader.unpack(EXAMPLE[64:], BLOCK.seed) == PHOTO
    assert check_needle(EXAMPLE[64:168], PHOTO, BLOCK.seed) == 0x1E5B70F660A602FA
    assert NeedleMeta.unpack(EXAMPLE[64 + 56 :][:22]) == META
    for offset, header in zip((168, 240, 312), MARKERS, strict=True):
        assert NeedleHeader.unpack(EXAMPLE[offset:], BLOCK.seed) == header
    assert check_needle(EXAMPLE[168:240], TOMBSTONE, BLOCK.seed) == 0x5DD91AAA66A2F905


def test_format_example_is_a_volume(tmp_path: Path) -> None:
    (tmp_path / "7.vol").write_bytes(EXAMPLE[:168])
    with Volume.open(tmp_path / "7.vol") as volume:
        needle = volume.get(0x1F5A, 0x0123456789ABCDEF)
        assert (bytes(needle.data), needle.meta) == (b"photo", META)
    (tmp_path / "8.vol").write_bytes(EXAMPLE[:240])
    with Volume.open(tmp_path / "8.vol") as volume:
        assert not volume.report.torn_bytes and volume.state().deleted_count == 1
        with pytest.raises(NeedleNotFound):
            volume.get(0x1F5A, 0x0123456789ABCDEF)


@pytest.mark.parametrize(
    ("section", "struct"),
    [("Superblock", layout.SUPERBLOCK), ("Needle header", layout.HEADER), ("Footer", layout.FOOTER)],
)
def test_format_tables_have_the_sizes_of_the_code(section: str, struct: layout.struct.Struct) -> None:
    text = DOCUMENT[DOCUMENT.index(f"## {section} ({struct.size} bytes") :]
    rows = re.findall(r"^\| (\d+) \| (\d+) \|", text[: text.index("\n## ", 5)], re.M)
    offset = 0
    for at, size in rows:
        assert int(at) == offset
        offset += int(size)
    assert offset == struct.size
    letters = re.findall(r"\d*[sA-Za-z]", struct.format[1:])
    assert [int(size) for _, size in rows] == [layout.struct.calcsize("<" + letter) for letter in letters]


def test_format_limits_are_those_of_the_code() -> None:
    assert (KEY.size, VALUE.size, STATE.size) == (12, 12, 78)
    assert layout.MAX_VOLUME_BYTES == 2**43 and layout.MAX_DATA_BYTES == 2**32 - 1
    assert layout.MAX_META_BYTES == 8192 and layout.MAX_BATCH_NEEDLES == 256
    assert layout.needle_bytes(0, 0) == 72
    assert f"version {layout.FORMAT_VERSION}" in DOCUMENT
