"""A client of a cluster, for asyncio and without; docs/client.md says more.

>>> from haystack.client import SyncHaystackClient                          # doctest: +SKIP
>>> with SyncHaystackClient("http://127.0.0.1:9333") as client:             # doctest: +SKIP
...     stored = client.upload(Path("cat.jpg"), name="cat.jpg", mime="image/jpeg")
...     assert client.read(stored.fid) == Path("cat.jpg").read_bytes()

>>> from haystack.client import HaystackClient                              # doctest: +SKIP
>>> async with HaystackClient("http://127.0.0.1:9333") as client:           # doctest: +SKIP
...     stored = await client.upload(Path("cat.jpg"), name="cat.jpg", mime="image/jpeg")
...     assert await client.read(stored.fid) == Path("cat.jpg").read_bytes()
"""

from haystack.client.client import HaystackClient
from haystack.client.directory import Assignment, PhotoRecord
from haystack.client.errors import Refused, SourceChanged, UnexpectedAnswer, Unreachable, WrongContent
from haystack.client.locations import Location
from haystack.client.names import PhotoName, parse_photo_name
from haystack.client.photo import PhotoInfo, StoredPhoto
from haystack.client.reading import PhotoStream
from haystack.client.retry import RetryPolicy
from haystack.client.sources import FileSource, IteratorSource, MemorySource, Source
from haystack.client.sync import SyncHaystackClient, SyncPhotoStream

__all__ = [
    "Assignment",
    "FileSource",
    "HaystackClient",
    "IteratorSource",
    "Location",
    "MemorySource",
    "PhotoInfo",
    "PhotoName",
    "PhotoRecord",
    "PhotoStream",
    "Refused",
    "RetryPolicy",
    "Source",
    "SourceChanged",
    "StoredPhoto",
    "SyncHaystackClient",
    "SyncPhotoStream",
    "UnexpectedAnswer",
    "Unreachable",
    "WrongContent",
    "parse_photo_name",
]
