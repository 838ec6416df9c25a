"""Measures opstream, by itself and beside the raw pipeline that it stands on. `make bench` runs it; tests never do.

Begin with `__main__`, which runs the parts and prints their tables. A folder holds related parts; `harness` has what
all of them use.

Not allowed in: anything that opstream or its users need. Apart from tests, nothing imports this package.
"""
