"""The commands of `opstream`, one module each. The module and the function in it are named like the command.

Begin with `opstream.cli.app`, which lists the commands and imports a module only when its command is called. A module
has the options of its command and the work, or a call of the package that does it. Most pass the options on in one
struct: `…Settings` of their own, or `Settings` of the service that they start.

`api`, `runner`, `projector` and `webhooks` import their service inside the function, because logs and signals must be
set up before that long import. Other commands import the journal, and `provision`, `rebuild` and `verify` also parts of
a service, at the top of their modules: only the command that is called pays for it. Commands do not import each other:
what two of them need goes one folder up.
"""
