"""What is done to uploaded pictures, on bytes alone: checks, right colours and orientation, renditions, fingerprints.

The functions run in the processes of :mod:`frontend.images.pool`, never on an event loop.
"""
