from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from client_fakes import FakeCluster

from haystack.client import HaystackClient, RetryPolicy


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    fake = FakeCluster()
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
def slept() -> list[float]:
    """The delays that the client asked for; it does not wait for them."""
    return []


@pytest.fixture
async def client(cluster: FakeCluster, slept: list[float]) -> AsyncIterator[HaystackClient]:
    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    policy = RetryPolicy(retries=3, uniform=lambda: 0.0, sleep=sleep)
    async with HaystackClient(cluster.url, retries=policy, timeout_seconds=5, uniform=lambda: 0.0) as opened:
        yield opened
