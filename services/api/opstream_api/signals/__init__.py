"""Signals: what a request says (`signal_request`), the event that follows (`signal_desk`), and what a status shows of a
wait (`shown_wait`). The routes are in `routes/signal_routes.py`, the decisions in `opstream_schemas.signals`.
"""
