"""What a person sees: errors, colours, tables, progress, and how operations and events read as text.

Begin with `console`. Each module writes text or returns it; none connects to a broker or a service, and none imports
`cli`, `history` or `local`.
"""
