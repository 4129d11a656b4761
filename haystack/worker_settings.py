"""What a node's main process hands to each of its workers: as JSON, in a memfd that the worker inherits."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeWorkerSettings:
    """What workers of every kind of node get; each kind adds its own.

    Parameters
    ----------
    host, port: where to listen, together with the other workers (SO_REUSEPORT); the port is never 0.
    worker: number of this worker, from 0.
    secret: of the cluster, None for none.

    The others are as in the node's table of settings.
    """

    host: str
    port: int
    worker: int
    secret: bytes | None = field(default=None, repr=False)
    max_header_bytes: int
    max_connections: int
    header_timeout_seconds: float
    idle_timeout_seconds: float
    stall_timeout_seconds: float
    stop_timeout_seconds: float

    @classmethod
    def of_node(cls, node: object, **own: Any) -> Self:
        """Settings of one worker.

        Parameters
        ----------
        node: the node's table of settings.
        own: what is not as in that table.
        """
        carried_over = {one.name for one in dataclasses.fields(cls)} - own.keys()
        return cls(**own, **{name: getattr(node, name) for name in carried_over})

    def share(self) -> int:
        """Put the settings into a new memfd and return its descriptor, for :meth:`load` in the worker."""
        fd = os.memfd_create("haystack-settings", os.MFD_CLOEXEC)
        os.write(fd, json.dumps(dataclasses.asdict(self), default=_as_text).encode())
        return fd

    @classmethod
    def load(cls, fd: int) -> Self:
        """Read the settings from an inherited descriptor and close it. Raises ValueError when they are not ours."""
        try:
            document = json.loads(os.pread(fd, os.fstat(fd).st_size, 0))
        finally:
            os.close(fd)
        expected = {one.name for one in dataclasses.fields(cls)}
        if document.keys() != expected:
            raise ValueError(f"these are settings of another release: {sorted(document.keys() ^ expected)}")
        return cls(**document | cls._decoded(document))

    @classmethod
    def _decoded(cls, document: dict[str, Any]) -> dict[str, Any]:
        """Return what JSON has no type for."""
        return {"secret": None if document["secret"] is None else bytes.fromhex(document["secret"])}


def _as_text(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Path):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} is nothing that settings consist of")
