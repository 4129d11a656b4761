"""What ``folder.json`` says of a data folder: whose it is, and which others belong to the same Store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

FOLDER_FORMAT = 1
LMDB_FORMAT = 1
IDENTITY_FILE = "folder.json"
MAX_IDENTITY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Identity:
    """What ``folder.json`` says.

    Parameters
    ----------
    store_id, folder_id: UUIDs.
    cluster_id: UUID of the cluster, None until a Directory has told it.
    siblings: paths of all folders of the Store by folder id, this one included.
    """

    store_id: str
    folder_id: str
    cluster_id: str | None = None
    siblings: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> bytes:
        document = {
            "format": FOLDER_FORMAT,
            "store_id": self.store_id,
            "folder_id": self.folder_id,
            "cluster_id": self.cluster_id,
            "lmdb_format": LMDB_FORMAT,
            "folders": dict(self.siblings),
        }
        return json.dumps(document, indent=2).encode() + b"\n"

    @classmethod
    def from_json(cls, raw: bytes) -> Identity:
        """Read it. Raises ValueError, saying what is wrong."""
        document: Any = json.loads(raw)
        if not isinstance(document, dict):
            raise ValueError("not a JSON object")
        for name, known in (("format", FOLDER_FORMAT), ("lmdb_format", LMDB_FORMAT)):
            if document.get(name) != known:
                raise ValueError(f"{name} {document.get(name)} is unknown; this release knows {known}")
        cluster_id, siblings = document.get("cluster_id"), document.get("folders", {})
        if not isinstance(siblings, dict) or not all(isinstance(path, str) for path in siblings.values()):
            raise ValueError("folders is not a map of paths")
        return cls(
            _uuid(document.get("store_id")),
            _uuid(document.get("folder_id")),
            None if cluster_id is None else _uuid(cluster_id),
            {_uuid(folder_id): path for folder_id, path in siblings.items()},
        )


def _uuid(text: object) -> str:
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is no UUID")
    return str(UUID(text))
