"""The data-path HTTP/1.1 server: strict, bounded and fast. It knows nothing of photos.

Start at :class:`haystack.http.server.Server`; what a handler implements is in :mod:`haystack.http.handler`.
"""
