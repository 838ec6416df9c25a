"""The whole system on one machine: the embedded broker, the supervisor behind `opstream up`, and the demo.

Begin with `supervisor`, which starts the commands of production as child processes. `processes` and `ports` do that
work, and would for any programs: of opstream they use `terminal.console` only. `nats_server` configures the broker;
`demo` acts as a client of `opstream up`, and `demo_narrator` prints what it does.

No service may be imported here. So whatever works here also works when each process is started alone.
"""
