"""Planted bugs: the catalogue, and how to look for each. They prove that the oracles of the simulator can fail.

Files are named by what the bugs are about. A bug is a function that plants it, under `@bug`; `docs/simulation.md` says
how to write one. Nothing here is imported by the rest of the simulator.
"""
