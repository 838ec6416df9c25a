"""The contract of opstream: everything on which its processes must agree, and nothing that does I/O or reads a clock.

What lives here: the events and their wire form (`events`), the names and subjects they travel under (`names`,
`subjects`), what a client sees (`status_monitor`, `errors`), what a runner announces (`action_spec`), and the records
of webhooks (`webhook_delivery`). The folders hold the pure logic: `operation` folds events into a state and decides on
commands, `integrity` verifies the hash chain, `asyncapi` describes the events for other languages.

Begin with `events`, then `operation/state`, `operation/fold` and `operation/commands`.

Not allowed in: a clock, randomness, files, sockets, a broker, HTTP statuses, and imports of any other opstream package.
Time and chance are parameters.
"""
