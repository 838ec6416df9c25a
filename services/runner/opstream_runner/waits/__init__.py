"""What authors wait for: `ActionContext.wait_for`. `wait_table` has the waits of one attempt, `wait_errors` what they
raise.

Which signals a wait takes is decided in `opstream_schemas.signals`.
"""
