"""A cluster on a virtual clock: the Directory's own decisions with simulated machines, disks, traffic and failures.

What is real: placement, growth, the choice of volumes for new photos, memberships after failures, repair, moves, and
rebalancing are the functions of :mod:`directory.decisions`, called with the snapshots that the Directory would make.
What is simulated: hardware, time, and the photos, which are counted by volume and not one by one. A run is decided by
its scenario and its seed alone.
"""
