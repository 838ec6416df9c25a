"""What a process counts for `/metrics`: plain numbers that grow, and gauges that are read at a scrape.

Begin with `instruments`. Whatever counts something makes its own instruments and adds to them; the composition root of
a service puts them into one `Metrics` (`page`), which is rendered when it is asked for.

Not allowed in: HTTP, and anything that waits or does I/O while it counts.
"""
