"""The model of a volume, with many more and other examples than the default run; a failing one is printed to replay."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parents[1] / "volume"))

from test_volume_model import VolumeMachine


class LongVolumeMachine(VolumeMachine):
    """The same machine under a name of its own."""


TestVolumeModelLong = pytest.mark.timeout(3600)(LongVolumeMachine.TestCase)
TestVolumeModelLong.settings = settings(
    max_examples=1500,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
