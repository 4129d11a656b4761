"""Measurements of the rebalance planner: snapshots, other planners to compare it with, and the least possible."""
