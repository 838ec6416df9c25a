"""Routes besides those of operations and schedules: parsing of requests, checks of methods, and responses.

Begin at `undelivered_routes.py`. What a request does is not allowed in: it is in the folder that each module names.
"""
