"""Earlier versions of opstream: their sources, and the part `release`, which compares this checkout with one of them.

Begin with `comparison`. `sources` takes a version from the history of the repository, for the tests of upgrades, too.

Not allowed in: anything that only this checkout has; what runs here has to run on the last release as well.
"""
