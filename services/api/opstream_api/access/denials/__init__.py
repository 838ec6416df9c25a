"""Denials: requests that were refused for what the caller may not do or did not prove. They are counted in memory, for
each caller, reason and minute, and written to the access log in the background (docs/adr/0053)."""
