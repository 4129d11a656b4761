"""Where people, photos and what they do is kept: SQLAlchemy 2 Core on SQLite or PostgreSQL.

One module a subject, each a set of functions that take a connection first and run one or a few statements. Rules of
access are not here but in :mod:`frontend.services`.
"""
