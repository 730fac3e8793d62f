"""The Pulumi program of every stack here; what a stack is stands in its file."""

from ems.engine.program import main

main()
