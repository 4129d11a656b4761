"""Small JSON files of a data folder that map volume ids to a record: ``volumes.json`` and ``confirmed.json``.

Neither is the only holder of anything that matters, so a file that cannot be read counts as empty, with a warning.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from haystack.volume.files import write_durably

_log = logging.getLogger(__name__)

TABLE_FORMAT = 1
VOLUMES_FILE = "volumes.json"
CONFIRMED_FILE = "confirmed.json"

Record = dict[str, Any]


def read_table(path: Path) -> dict[int, Record]:
    """The records by volume id; empty when there is no file or it cannot be used."""
    try:
        document = json.loads(path.read_bytes())
        if document["format"] != TABLE_FORMAT:
            raise ValueError(f"format {document['format']} is unknown")
        return {int(volume): dict(record) for volume, record in document["volumes"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        _log.warning("%s cannot be used and is made anew: %s", path, error)
        return {}


def write_table(path: Path, records: Mapping[int, Record]) -> None:
    """Replace the file, durably. Raises DiskError, OutOfSpace."""
    volumes = {str(volume): record for volume, record in sorted(records.items())}
    write_durably(path, json.dumps({"format": TABLE_FORMAT, "volumes": volumes}).encode())
