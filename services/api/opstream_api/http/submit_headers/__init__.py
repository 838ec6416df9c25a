"""Headers of a submit that have a page of their own. Begin with `upload_header`. Each is read without the others, and
nothing here knows operations: which files a claim stands for is found in `payloads`.
"""
