"""What a submit carries beside its target: the input, labels, and the files that were uploaded for it.

`content` writes them as a request has them. Pure.
"""
