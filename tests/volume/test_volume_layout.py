"""The byte layout: round trips, every flip noticed, junk refused, sizes."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from haystack.errors import InvalidRequest
from haystack.volume.layout import (
    ALIGNMENT,
    FOOTER_BYTES,
    HEADER_BYTES,
    MAX_BATCH_NEEDLES,
    MAX_DATA_BYTES,
    MAX_META_BYTES,
    NEEDLE_MAGIC_BYTES,
    SUPERBLOCK_BYTES,
    Flags,
    LayoutError,
    NeedleHeader,
    NeedleMeta,
    Superblock,
    check_footer,
    check_needle,
    needle_bytes,
    pack_needle,
    padding_bytes,
)

KINDS = (Flags.NONE, Flags.TOMBSTONE, Flags.TOMBSTONE | Flags.NOW, Flags.UNDELETE)

u16, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))
superblocks = st.builds(Superblock, u32, st.binary(min_size=16, max_size=16), u64, u32, st.integers(0, 999), u64)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
metas = st.builds(NeedleMeta, texts, texts, st.dictionaries(texts, texts, max_size=4).map(lambda d: tuple(d.items())))
batches = st.integers(1, MAX_BATCH_NEEDLES).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n)))


@st.composite
def headers(draw: st.DrawFn, data_bytes: st.SearchStrategy[int], meta_bytes: st.SearchStrategy[int]) -> NeedleHeader:
    index, size = draw(batches)
    return NeedleHeader(
        draw(u64), draw(u64), draw(u32), draw(data_bytes), draw(meta_bytes), draw(u64),
        draw(st.sampled_from(KINDS)), draw(u32), index, size, draw(u32),
    )  # fmt: skip


def _packed(meta: bytes = b"meta", data: bytes = b"some data", seed: int = 77) -> tuple[bytes, NeedleHeader]:
    header = NeedleHeader(1, 2, 3, len(data), len(meta), 4, durable_distance=0)
    return b"".join(bytes(piece) for piece in pack_needle(header, meta, [data[:3], data[3:]], seed)[0]), header


@given(superblocks)
def test_layout_superblock_round_trip(block: Superblock) -> None:
    raw = block.pack()
    assert len(raw) == SUPERBLOCK_BYTES
    assert Superblock.unpack(raw + b"more") == block


@given(headers(st.integers(0, MAX_DATA_BYTES), st.integers(0, MAX_META_BYTES)), u64)
def test_layout_header_round_trip(header: NeedleHeader, seed: int) -> None:
    raw = header.pack(seed)
    assert len(raw) == HEADER_BYTES and raw.startswith(NEEDLE_MAGIC_BYTES)
    assert NeedleHeader.unpack(raw, seed) == header
    with pytest.raises(LayoutError, match="check"):
        NeedleHeader.unpack(raw, seed ^ 1)  # a needle of another volume


@given(st.binary(max_size=64), st.lists(st.binary(max_size=300), max_size=4), u64)
def test_layout_needle_round_trip(meta: bytes, pieces: list[bytes], seed: int) -> None:
    data = b"".join(pieces)
    header = NeedleHeader(5, 6, 7, len(data), len(meta), 8)
    packed, checksum = pack_needle(header, meta, pieces, seed)
    raw = b"".join(bytes(piece) for piece in packed)
    assert len(raw) == header.total_bytes == needle_bytes(len(meta), len(data))
    assert len(raw) % ALIGNMENT == 0
    assert raw[HEADER_BYTES:].startswith(meta + data + bytes(padding_bytes(len(meta), len(data))))
    assert check_needle(raw, NeedleHeader.unpack(raw, seed), seed) == checksum


@given(st.integers(0, MAX_META_BYTES), st.integers(0, MAX_DATA_BYTES))
def test_layout_sizes(meta_bytes: int, data_bytes: int) -> None:
    padding = padding_bytes(meta_bytes, data_bytes)
    assert 0 <= padding < ALIGNMENT
    assert needle_bytes(meta_bytes, data_bytes) == HEADER_BYTES + meta_bytes + data_bytes + padding + FOOTER_BYTES
    assert needle_bytes(meta_bytes, data_bytes) % ALIGNMENT == 0


@pytest.mark.parametrize("data", [b"", b"x", b"1234567", b"12345678", bytes(100)])
def test_layout_every_flip_in_a_needle_is_noticed(data: bytes) -> None:
    raw, header = _packed(data=data)
    for at in range(len(raw)):
        for mask in (1, 0x80, 0xFF):
            bad = bytearray(raw)
            bad[at] ^= mask
            if at < HEADER_BYTES:
                with pytest.raises(LayoutError):
                    NeedleHeader.unpack(bad, 77)
            with pytest.raises(LayoutError):
                check_needle(bad, header, 77)


@pytest.mark.parametrize("at", range(SUPERBLOCK_BYTES))
def test_layout_every_flip_in_a_superblock_is_noticed(at: int) -> None:
    raw = bytearray(Superblock(1, bytes(range(16)), 5).pack())
    raw[at] ^= 0x10
    with pytest.raises(LayoutError):
        Superblock.unpack(raw)


def test_layout_every_cut_of_a_needle_is_noticed() -> None:
    raw, header = _packed()
    for size in range(len(raw)):
        with pytest.raises(LayoutError):
            check_needle(raw[:size], header, 77)
        with pytest.raises(LayoutError):
            check_footer(raw[size:][-FOOTER_BYTES:][: FOOTER_BYTES - 1], 0)


@given(st.binary(max_size=200), u64)
@example(b"", 0)
def test_layout_junk_is_never_taken(junk: bytes, seed: int) -> None:
    with pytest.raises(LayoutError):
        Superblock.unpack(junk)
    for raw in (junk, NEEDLE_MAGIC_BYTES + junk):
        with pytest.raises(LayoutError):
            NeedleHeader.unpack(raw, seed)


@given(st.binary(max_size=100))
def test_layout_junk_metadata_is_refused_or_texts(junk: bytes) -> None:
    try:
        meta = NeedleMeta.unpack(junk)
    except LayoutError:
        return
    assert all(isinstance(text, str) for text in (meta.name, meta.mime, *sum(meta.pairs, ())))


@pytest.mark.parametrize("fields", [5, [1], {"n": 5}, {"m": b"x"}, {"p": [1]}, {"p": {"a": 1}}, {"p": {"a": None}}])
def test_layout_metadata_of_another_shape_is_refused(fields: object) -> None:
    with pytest.raises(LayoutError):
        NeedleMeta.unpack(msgpack.packb(fields))


@given(metas)
def test_layout_metadata_round_trip(meta: NeedleMeta) -> None:
    raw = meta.pack()
    assert NeedleMeta.unpack(raw) == meta
    assert NeedleMeta.unpack(memoryview(raw)) == meta
    assert (raw == b"") == (meta == NeedleMeta())


def test_layout_metadata_that_cannot_be_kept_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="at most 8192"):
        NeedleMeta("x" * MAX_META_BYTES).pack()
    with pytest.raises(InvalidRequest, match="UTF-8"):
        NeedleMeta("\udc80.jpg").pack()


@pytest.mark.parametrize("version", [0, 2, 65535])
def test_layout_unknown_version_is_refused_by_number(version: int) -> None:
    raw = bytearray(Superblock(1, bytes(16), 5).pack())
    raw[8:10] = version.to_bytes(2, "little")
    with pytest.raises(LayoutError, match=f"version {version} is unknown; this release reads version 1"):
        Superblock.unpack(raw)


@pytest.mark.parametrize(
    "header",
    [
        NeedleHeader(1, 2, 3, 4, MAX_META_BYTES + 1, 5),
        *(NeedleHeader(1, 2, 3, 4, 0, 5, flags=flags) for flags in (2, 5, 6, 7, 9, 12, 16, 2**15)),
        NeedleHeader(1, 2, 3, 4, 0, 5, batch_index=1, batch_size=1),
        NeedleHeader(1, 2, 3, 4, 0, 5, batch_size=0),
        NeedleHeader(1, 2, 3, 4, 0, 5, batch_size=MAX_BATCH_NEEDLES + 1),
    ],
)
def test_layout_header_out_of_range_is_refused_though_its_check_is_right(header: NeedleHeader) -> None:
    with pytest.raises(LayoutError):
        NeedleHeader.unpack(header.pack(9), 9)
