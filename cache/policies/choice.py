"""Policies by the words that settings name them with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cache.policies.lru import SegmentedLru
from cache.policies.policy import Policy
from cache.policies.s3fifo import S3Fifo
from haystack.errors import ConfigError

POLICIES: Final[dict[str, Callable[[], Policy]]] = {policy.name: policy for policy in (SegmentedLru, S3Fifo)}


def make_policy(name: str) -> Policy:
    """A new, empty policy. Raises ConfigError for a name that is none."""
    make = POLICIES.get(name)
    if make is None:
        raise ConfigError(f"[cache] policy {name!r} is unknown; expected one of {', '.join(POLICIES)}")
    return make()
