"""Having the Stores compact volumes: on order, by itself, and all copies of a volume alike."""
