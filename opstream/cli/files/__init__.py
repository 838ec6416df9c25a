"""What the commands about files share: options that name a file to upload, and transfers with their progress.

Begin with `transfer`. It knows the service by the client only; which files an operation has is in docs/payloads.md.
"""
