"""Who may upload a file before its operation is submitted: tokens in URLs, and the claims that a submit names.

Begin with `upload_token`, which is pure; `upload_access` is what the door asks. What happens to the bytes is in
`payloads/`.
"""
