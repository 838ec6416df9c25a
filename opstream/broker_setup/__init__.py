"""The files with which a broker of its own lets each role do what it needs: configuration, keys and certificates.

Begin at `setup_folder.py`, which writes them; `server_config.py` makes the text. What a role may do is in
`opstream_schemas.broker_access`. Not allowed in: a connection to a broker.
"""
