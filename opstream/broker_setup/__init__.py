"""The files with which a broker of its own lets each role do what it needs: configuration, keys and certificates.

Begin at `certificates.py`. Not allowed in: a connection to a broker, and anything that a service needs while it runs.
"""
