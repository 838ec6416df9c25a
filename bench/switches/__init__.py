"""What authentication, metrics and roles at the broker cost: systems with and without them, loaded in turns.

Begin with `comparison`. `switched_system` starts a system with some of them switched on.
"""
