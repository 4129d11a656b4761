"""Moves of copies from one Store to another, as durable orders."""
