"""Finding damage before somebody needs what is damaged, and mending it from another copy.

| module | about |
|---|---|
| ``examine`` | verifying a piece of a volume; blocking |
| ``restore`` | writing what another copy has over damaged bytes; blocking |
| ``mending`` | one damaged range: fetched, verified, restored |
| ``superblocks`` | volumes that cannot be opened because their superblock is damaged |
| ``comparing`` | a piece of a volume against another copy |
| ``record`` | how far each volume is, kept in ``scrub.json`` |
| ``scrubber`` | the job that walks the volumes of a data folder |
| ``scrub_api`` | the call that starts it |
"""
