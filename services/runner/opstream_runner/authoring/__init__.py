"""What authors of actions use: the decorator with its options, and the context that a handler gets.

Begin at `action.py`. The exceptions that a handler raises are in `opstream_runner.errors`. Nothing here may import the
journal, nats-py or a folder of this package: a unit test of an action loads this folder, `opstream_runner` itself with
its `errors`, and `opstream_schemas`, and so needs no broker.
"""
