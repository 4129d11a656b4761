"""A volume that cannot be opened because its superblock is damaged: it gets the one of another copy.

Which volume it is says its membership, and the needles: their checks are seeded with the volume's uuid.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from haystack.errors import HaystackError
from haystack.store.control_cells import VolumeState
from haystack.store.copies.peer import Peer, PeerUnavailable
from haystack.store.store_volume import StoreVolume
from haystack.store.volumes import StoreVolumes
from haystack.volume import ScannedNeedle, Superblock
from haystack.volume.files import VolumeFile
from haystack.volume.layout import SUPERBLOCK_BYTES, LayoutError
from haystack.volume.scan import scan

_log = logging.getLogger(__name__)


def needs_superblock(volumes: StoreVolumes, entry: StoreVolume) -> bool:
    """Whether a volume is set aside because its superblock cannot be read, and may be mended."""
    return (
        entry.superblock is None
        and entry.volume is None
        and entry.membership is not None
        and volumes.state(entry) is VolumeState.FAILED
        and not entry.folder.failed
    )


async def mend_superblock(volumes: StoreVolumes, entry: StoreVolume, peers: Sequence[Peer]) -> bool:
    """Give the volume another copy's superblock and open it; returns whether that came to be."""
    for peer in peers:
        try:
            raw = await peer.read(0, SUPERBLOCK_BYTES)
            superblock = Superblock.unpack(raw)
        except (PeerUnavailable, LayoutError) as error:
            _log.warning("volume %d: no superblock from %s: %s", entry.id, peer, error)
            continue
        assert entry.membership is not None
        if superblock.volume != entry.id or UUID(bytes=superblock.uuid) != UUID(entry.membership.uuid):
            continue
        async with entry.changing:
            try:
                is_ours = await entry.folder.run(_replace, entry.path, raw, superblock.seed)
            except HaystackError as error:
                _log.error("volume %d: its superblock cannot be mended: %s", entry.id, error)
                return False
            if not is_ours:
                continue
            _log.warning("volume %d: mended its superblock from %s", entry.id, peer)
            volumes.control.try_again(entry.slot)
            await volumes.recover(entry)
        return entry.volume is not None
    return False


def _replace(path: Path, raw: bytes, seed: int) -> bool:
    """Write the superblock if the first needle agrees with it. Blocks. Raises DiskError, OutOfSpace."""
    file = VolumeFile(path)
    try:
        size_bytes = file.size_bytes()
        first = next(scan(file, seed, SUPERBLOCK_BYTES, size_bytes), None)
        if size_bytes > SUPERBLOCK_BYTES and not isinstance(first, ScannedNeedle):
            return False
        file.pwrite([raw], 0)
        file.sync()
    finally:
        file.close()
    return True
