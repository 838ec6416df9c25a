"""The data of events, in modules by subject: `base.py` has what all share, `steps.py` the events of steps, `waits.py`
the one of waits, `signals.py` that of signals, `claims.py` what names payloads.

Code imports all of them from `opstream_schemas.events`, which has the other types, the envelope and the codec. A module
here knows neither of those.
"""
