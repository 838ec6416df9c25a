"""What operators decide about actions, and all actions at one moment (docs/adr/0064).

Begin with `action_controls`, which pauses and resumes; `action_overview` is for people; `announced_versions` says what
a version of an action may not mean twice.

Not allowed in: anything that decides about one operation.
"""
