"""The webhooks service: it posts the outcomes of operations to receivers over HTTP (docs/webhooks.md).

Begin with `main`, which composes the process. `fanout` turns each outcome into deliveries, one per receiver, which wait
on the broker; `delivery_worker` attempts them. `config` knows receivers and secrets, `receiver_limits` how many
attempts a receiver gets at once, `http_sender` makes the request, `address_guard` restricts which addresses it may
reach, `retry_schedule` and `signature` follow Standard Webhooks. Records and their subjects belong in
`opstream_schemas.webhook_delivery`. No handler of a user runs here.
"""
