"""The JSON API under ``/api/v1``.

:mod:`frontend.api.calls` is the table of all calls. From it follow the routes, the checks of what comes in, and the
OpenAPI document, so that these cannot differ.
"""
