"""Policies of replacement: what stays in the memory of a Cache, and what goes first."""

from cache.policies.choice import POLICIES, make_policy
from cache.policies.policy import Policy

__all__ = ["POLICIES", "Policy", "make_policy"]
