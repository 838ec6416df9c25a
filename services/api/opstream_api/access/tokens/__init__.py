"""What a request may bring instead of an API key: bearer tokens (JWT) of an identity provider, and status tokens.

Start with `token_verifier.TokenVerifier`, which turns a bearer token into a principal, and with `status_token`. All but
`status_token`, `jwt_settings` and `errors` import cryptography and PyJWT, so a service loads them only if it has an
issuer. Nothing here knows requests or responses: the door does (ADR 0047).
"""
