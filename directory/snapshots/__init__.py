"""Snapshots of the whole cluster."""
