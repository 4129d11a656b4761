"""The Directory: the service that knows every machine, every volume, and which photo lies where."""
