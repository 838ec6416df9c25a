"""The files of an operation as its handler sees them. Begin with `attached_file`, which a handler adds, and
`uploaded_file`, which its client has uploaded. Where their bytes are belongs to `attempt`, not to here.
"""
