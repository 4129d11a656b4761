"""Runs a Cache with timing for tests: ``run_cache.py <settings JSON> <timing JSON>``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import uvloop

from cache.keeper import keep
from cache.settings import Timing
from haystack.config import CacheSettings
from haystack.errors import HaystackError
from haystack.lifetime import log_to_stderr


def main() -> None:
    settings, timing = json.loads(sys.argv[1]), json.loads(sys.argv[2])
    settings["data"] = Path(settings["data"])
    settings["secret"] = bytes.fromhex(settings["secret"]) if settings["secret"] else None
    settings["ssd"] = Path(settings["ssd"]) if settings.get("ssd") else None
    settings["directories"] = tuple(settings["directories"])
    log_to_stderr()
    try:
        uvloop.run(keep(CacheSettings(**settings), timing=Timing(**timing)))
    except HaystackError as error:
        sys.exit(f"haystack: {type(error).__name__}: {error}")


main()
