"""Copies of volumes: read by other Stores, made from another Store's, brought up to it, given up.

The contract between the parts is docs/replication.md.

| module | about |
|---|---|
| ``ranges``, ``ranges_api`` | bytes and hashes of a volume, for other Stores |
| ``peer`` | the same, asked of another Store |
| ``bandwidth`` | a limit on bytes a second |
| ``prefix`` | up to where two copies are the same |
| ``follow`` | one copy brought up to its source: compared, cut, completed |
| ``fresh`` | one copy made from nothing |
| ``jobs``, ``copies_api`` | the calls that start, watch and end all that |
"""
