"""The second level of a Cache: photos that memory has given up, on a solid-state disk. See docs/cache.md."""

from cache.ssd.level import SecondLevel, SsdPhoto
from cache.ssd.plan import SsdPlan, plan_ssd

__all__ = ["SecondLevel", "SsdPhoto", "SsdPlan", "plan_ssd"]
