"""The Cache: photos in memory in front of the Stores."""
