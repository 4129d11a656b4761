"""The photo service: people, photos, feeds and pages on top of the store."""
