"""One module a command: the module and the function in it have the name of the command, as `opstream.cli.app` lists it.

A module holds the options of its command, a `…Settings` struct of their values, and the work, or a call of it. It
imports a service (`opstream_api`, `opstream_runner`, …) inside the function, after logging and signals are set up.
Commands do not import each other: what two of them need goes one folder up.
"""
