"""The storage engine alone: volumes of needles with their index, usable without any server.

>>> from haystack.volume import NeedleMeta, Volume                              # doctest: +SKIP
>>> with Volume.create(Path("7.vol"), 7) as volume:                              # doctest: +SKIP
...     volume.put(key=1, cookie=0x1f5a, data=photo, meta=NeedleMeta("cat.jpg", "image/jpeg"))
...     assert volume.get(key=1, cookie=0x1f5a).data == photo
"""

from haystack.volume.check import CheckReport, check_volume
from haystack.volume.layout import Flags, NeedleHeader, NeedleMeta, Superblock
from haystack.volume.operations import Delete, Deleted, NewNeedle, Put, Stored, Undelete, Undeleted
from haystack.volume.reading import Needle
from haystack.volume.scan import Damage, ScannedNeedle
from haystack.volume.stat import VolumeStat
from haystack.volume.volume import Volume

__all__ = [
    "CheckReport",
    "Damage",
    "Delete",
    "Deleted",
    "Flags",
    "Needle",
    "NeedleHeader",
    "NeedleMeta",
    "NewNeedle",
    "Put",
    "ScannedNeedle",
    "Stored",
    "Superblock",
    "Undelete",
    "Undeleted",
    "Volume",
    "VolumeStat",
    "check_volume",
]
