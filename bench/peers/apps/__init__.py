"""The no-op of each peer, in the few lines that its documentation shows. Each module runs in a virtual environment of
its own, with this folder as its path, and reads its addresses from variables; opstream is not importable there.
"""
