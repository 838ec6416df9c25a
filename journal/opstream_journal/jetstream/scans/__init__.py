"""Reads of a whole stream in its order, by one reader alone.

Begin with `stream_scan`. It has a reader at a time, and another one when that is lost: an `ordered_consumer`, or a
`direct_reader` for a login that may make no consumer, which listens to a `live_feed` where it follows a stream.
"""
