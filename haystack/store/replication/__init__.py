"""Copies of a volume on several Stores: who belongs to it, how batches travel, and when an append counts.

The contract between the parts is docs/replication.md.

| module | about |
|---|---|
| ``membership`` | who has a copy, under which epoch; as the JSON of ``<id>.members`` and of the admin API. Pure |
| ``rules`` | every decision that safety needs, by name. Pure |
| ``members_file`` | keeps a membership on disk |
"""
