"""What a person sees: errors, colours, tables, progress, logs, and how operations and events read as text.

Begin with `console`. Each module writes text or returns it. None may connect to a broker or a service, or import `cli`,
`history` or `local`.
"""
