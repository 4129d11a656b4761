"""Haystack: a self-hosted blob storage engine for photos."""

__version__ = "0.1.0"
