"""How hot volumes, machines and photos are, as the Stores and Caches report it."""
