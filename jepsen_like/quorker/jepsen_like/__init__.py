"""Judges a cluster, real or simulated: histories, workloads, faults and checkers, and stand-ins for parts of a node."""
