"""The Caches: who is there, and what they are told when an answer of a Store no longer holds."""
