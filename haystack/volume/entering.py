"""What a needle of any kind does to the index, for all who have its header: recovery, and batches of other copies."""

from __future__ import annotations

from haystack.volume.index import IndexWriter
from haystack.volume.index_records import IndexEntry, entry_flags
from haystack.volume.layout import NeedleHeader


def enter_header(writer: IndexWriter, offset: int, header: NeedleHeader) -> bool:
    """Enter a needle into the index, as the append that made it did. Raises IndexDamaged, OutOfSpace.

    Parameters
    ----------
    offset: where it lies in the volume.

    Returns whether it may change what was answered before.
    """
    key, alternate = header.key, header.alternate
    if header.is_tombstone:
        writer.delete(key, alternate, header.total_bytes, header.time_ms, now=header.skips_trash)
        return True
    if header.is_undelete:
        writer.undelete(key, alternate, header.total_bytes, header.time_ms)
        return True
    entry = IndexEntry(offset, header.data_bytes, header.meta_bytes, entry_flags(header.expires, header.flags))
    return writer.store(key, alternate, entry, header.time_ms) is not None
