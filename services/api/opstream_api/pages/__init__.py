"""The pages that the API serves to browsers: `/docs` and `/console`, with all their files.

Begin at `console_page.py`. Both load nothing from other hosts, and their links are relative, so they also work below a
path prefix; `static_files.py` answers with a file. The console's own files are in `console/`: they use only the public
API, with the caller's own credentials, so nothing here may give them more. No file is made by a build step.
"""
