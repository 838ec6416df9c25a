"""The broker in memory. Begin at `memory_broker.py`, which has the streams; `memory_connection.py` answers for it.

Neither may know what an event means: operations, actions and attempts belong to the code of production that runs on it.
"""
