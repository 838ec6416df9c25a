"""The input of a submit: from the bytes of a body to a value that its action takes, or to a list of problems.

Begin with `input_validation`. `input_problems` says what is wrong, and `unreadable_json` where a body stops to be JSON.
"""
