"""What the operator's sizing must fulfil before anything on the broker is made or changed. Begin with `journal_age`.

Nothing here asks the broker: `provision` does, and hands over what it found.
"""
