"""The whole system on one machine: the embedded broker, the supervisor behind `opstream up`, and the demo.

Begin with `supervisor`, which starts the commands of production as child processes. `processes` and `ports` know
nothing of opstream; `nats_server` configures the broker; `demo` acts as a client of `opstream up`. No part of the
services is imported here: whatever works here works when each process is started alone.
"""
