"""opstream beside its peers, each behind HTTP, measured with one client on one machine in one run.

`make peers` installs what the peers need, `make bench ARGS="--only peers"` measures. Begin with `catalogue`, which says
how each peer is started and asked; `benchmark` has the rounds, `client` the loads, `comparison` the tables. `apps` are
the peers' own few lines; they run in the peers' virtual environments, so they import nothing of opstream's.

Not allowed in: a setting that makes a peer slower than its documentation does.
"""
