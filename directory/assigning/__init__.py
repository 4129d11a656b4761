"""Where new photos go: ids that are never given twice, volumes that take photos, and growing more of them."""
