"""The intake: takes uploads on the machine that stores them.

Ticket, picture, multi-write, and then the photo's record at the front end, told until it is known there.
"""
