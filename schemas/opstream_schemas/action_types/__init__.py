"""What the types of an action mean in JSON: the schema that is announced, and what the API and the runner read alike.

Begin at `type_decoder.py`: it makes the runner's way to decode from a schema, so that what the API accepts is what the
runner decodes (docs/adr/0030). `schema_formats.py` has the words of our own in a schema. Nothing here knows the Python
types of an author: those are in `opstream_runner.authoring`.
"""
