"""Rows of tables, a module for each thing that a table lists. Begin with `count_row`; `spans` writes times in short.

A row takes plain values: what a service, the broker or the client calls them is the business of the commands.
"""
