"""What probes and Prometheus ask a process of the API for.

Begin with `readiness` (the answer of `/readyz`); `health_port` serves it on a port of its own.
Not allowed in: what clients ask for.
"""
