"""The commands of `opstream`, one module each. The module and the function in it are named like the command.

Begin with `opstream.cli.app`, which lists the commands and imports a module only when its command is called. A module
has the options of its command and the work, or a call of the package that does it. Most pass the options on in one
struct: `…Settings` of their own, or `Settings` of the service that they start.

A command imports what it works with (a service, the journal, the client) inside its functions, so that its help and a
usage error come at once; a service does so only after its logs and signals are set up. Commands do not import each
other: what two of them need goes one folder up.
"""
