"""Options that several commands share, and the types that options accept. An option has the same name, variable and
meaning in every command.

Begin with `option`: it has the class that every option is made from, and callbacks for lists and names. `value_types`
and `address_types` say what durations, sizes, times, hosts and URLs look like. The other modules hold the options
themselves: `common` (broker, ports, limits, logs), `client` (a running service), `history`, `proxy`, `webhooks`.

An option that only one command has is in the module of that command. Nothing here does the work of a command.
"""
