"""What did not reach those it was for: failed webhook deliveries, and events that subscribers put aside.

Begin at `delivery_desk.py`. Both desks read what there is, and ask the process whose it is to try again. Neither writes
to a stream. All of it is an administrator's, of the operations of its tenant only.
"""
