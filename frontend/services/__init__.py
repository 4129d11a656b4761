"""What the photo service does, with its rules of who may do it. API and pages are two ways to ask for the same.

One class a subject, on top of :class:`~frontend.database.engine.Database`. Whoever asks is a
:class:`~frontend.database.people.User`, or None for somebody who is not logged in. What somebody may not see is
answered as if it were not there.
"""
