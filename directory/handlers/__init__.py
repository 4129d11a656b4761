"""The HTTP handlers of the Directory, one module for each group of calls."""
