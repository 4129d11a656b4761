"""What a Cache is asked for, and what different policies make of it."""
