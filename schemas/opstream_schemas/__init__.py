"""The contract of opstream: everything on which its processes must agree, and nothing that does I/O or reads a clock.

Begin with `events`, then `operation/state`, `operation/fold` and `operation/commands`. What lives here:

- `events` (their wire form), `names` and `subjects` (what they travel under), `event_filter` (a choice among them);
- `status_monitor` and `errors`: what a client sees;
- `action_spec`: what a runner announces; `webhook_delivery`: the records of webhooks; `urls`: which URLs may be called;
- `timeline`: the life of one operation, for people; `json_schemas`: the contract for other languages;
- `text`: limits of texts and JSON;
- `operation/`: folds events into a state, and decides on commands; `integrity/`: verifies the hash chains; `asyncapi/`:
  describes the events for other languages.

Not allowed in: a clock, randomness, files, sockets, a broker, HTTP statuses, and imports of any other opstream package.
Time and chance are parameters.
"""
