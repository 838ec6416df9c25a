"""How far it scales: what streams carry by disk and copies, a cluster of three, a long journal, a long queue.

Begin with `benchmark`, which runs the parts. `servers` starts nats-servers with a slower disk or as a cluster.

Not allowed in: what measures opstream on one server with an ordinary load; that is `bench/throughput`.
"""
