"""The webhooks service: it posts the outcomes of operations to receivers over HTTP (docs/webhooks.md).

Begin with `main`, which composes the process, then `fanout`: it turns each outcome into deliveries, one per receiver,
which wait on the broker. `delivery_worker` attempts them. `config` knows receivers and secrets, `receiver_limits` how
many attempts a receiver gets at once, `http_sender` makes the request, `address_guard` restricts which addresses it may
reach, `retry_schedule` and `signature` follow Standard Webhooks.

Not allowed in: appends to the journal (the service only reads it), code of users, and the records of deliveries with
their subjects, which are in `opstream_schemas.webhook_delivery`. Only `http_sender` connects to a receiver.
"""
