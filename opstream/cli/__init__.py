"""The `opstream` command line.

`app` is the entry point: it lists the commands and imports a module of `commands` only when that command is called.
`options` has the options that commands share. The `*_session` modules and `service_process` have what several commands
do before and after their own work: connect to a broker or a service, turn errors into one line, close.

Begin with `app`, then one command. Work that is not about options, output or exit statuses belongs into `history`,
`local`, `terminal` or a service; none of those may import this package.
"""
