"""What `opstream list` and `opstream count` share: the options that select operations, and the filter that they make.

Begin with `selection`. Commands import it; it knows the language of filters as docs/list.md has it, and sends nothing.
"""
