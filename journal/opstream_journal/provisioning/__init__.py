"""The streams, buckets and consumers that must exist on the broker: as data, created, and compared.

Begin with `topology` and `webhook_topology` (what must exist), then `provision` (create it and check it).
`config_drift` compares configurations, `jetstream_admin` asks the broker. `archive` is the optional stream for audits,
`subscriber_consumers` the durable consumers of subscribers. Nothing here reads or writes what the streams hold.
"""
