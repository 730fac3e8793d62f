"""Environments as archives, where the nodes of a machine come and go: built once, unpacked on each node, used by many.

Standard library alone, Python 3.9 or newer: it runs where nothing is installed yet.
"""
