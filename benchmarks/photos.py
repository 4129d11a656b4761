"""Photos for measurements: made from a seed, put into volumes through the engine, or into plain files for the peer."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from haystack.errors import HaystackError
from haystack.fid import MAX_COOKIE, Fid
from haystack.store.folder_opening import open_folders
from haystack.volume import NeedleMeta, NewNeedle, Put, Volume

BLOCK_BYTES = 8 * 2**20
BATCH_BYTES = 32 * 2**20
BATCH_NEEDLES = 256
TIME_MS = 1_700_000_000_000
"""All photos are from the same moment, so that two runs have the same bytes."""


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo to be measured with."""

    fid: Fid
    size_bytes: int

    @property
    def path(self) -> str:
        """Where it is, on Haystack and on the peer alike."""
        return f"/{self.fid}"


class PhotoMaker:
    """Random bytes, different for each photo, that do not compress, at the speed of a copy."""

    def __init__(self, seed: int = 1) -> None:
        self._block = memoryview(random.Random(seed).randbytes(BLOCK_BYTES))

    def body(self, photo: Photo) -> bytes:
        """The bytes of a photo (at most 4 MiB); the first eight are its key."""
        key = photo.fid.key.to_bytes(8, "big")
        start = photo.fid.key * 7919 % (BLOCK_BYTES // 2)
        return (key + self._block[start : start + max(0, photo.size_bytes - 8)])[: photo.size_bytes]


def cookie_of(key: int) -> int:
    """A cookie that looks random and follows from the key (the mixer of splitmix64)."""
    mixed = (key + 0x9E3779B97F4A7C15) & MAX_COOKIE
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 & MAX_COOKIE
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB & MAX_COOKIE
    return mixed ^ (mixed >> 31)


def photo_set(first_key: int, count: int, size_bytes: int, volumes: int) -> list[Photo]:
    """Photos with consecutive keys, dealt out to volumes 1 … ``volumes`` as the Directory does it."""
    return [
        Photo(Fid(1 + key % volumes, key, cookie_of(key)), size_bytes) for key in range(first_key, first_key + count)
    ]


def fill_store(folder: Path, photos: Sequence[Photo], maker: PhotoMaker, *, volumes: int) -> None:
    """Make the data folder of a Store that is not running, with volumes 1 … ``volumes`` that hold the photos."""
    data_folders = open_folders([folder])
    try:
        for number in range(1, volumes + 1):
            with Volume.create(folder / f"{number}.vol", number) as volume:
                for batch in _batches([photo for photo in photos if photo.fid.volume == number]):
                    append(volume, [_needle(photo, maker) for photo in batch])
    finally:
        for data_folder in data_folders:
            data_folder.close()


def append(volume: Volume, needles: Sequence[NewNeedle]) -> None:
    """Append needles, at most 256, as one write. Raises what became of them."""
    outcome = volume.append([Put(tuple(needles))]).outcomes[0]
    if isinstance(outcome, HaystackError):
        raise outcome


def write_files(folder: Path, photos: Sequence[Photo], maker: PhotoMaker) -> None:
    """Put the photos into plain files, named so that their paths are the same as on a Store."""
    for photo in photos:
        (folder / str(photo.fid)).write_bytes(maker.body(photo))


def _needle(photo: Photo, maker: PhotoMaker) -> NewNeedle:
    fid = photo.fid
    meta = NeedleMeta(f"photo-{fid.key}.jpg", "image/jpeg").pack()
    return NewNeedle(fid.key, fid.cookie, (maker.body(photo),), TIME_MS, fid.alternate, meta)


def _batches(photos: Sequence[Photo]) -> Iterator[Sequence[Photo]]:
    start = size_bytes = 0
    for index, photo in enumerate(photos):
        if index > start and (index - start == BATCH_NEEDLES or size_bytes + photo.size_bytes > BATCH_BYTES):
            yield photos[start:index]
            start, size_bytes = index, 0
        size_bytes += photo.size_bytes
    if start < len(photos):
        yield photos[start:]
