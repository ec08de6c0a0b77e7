"""Raft, as a pure state machine: inputs append to an ordered list of effects, a driver performs them.

The log's entries are opaque bytes here; what they mean is the business of whoever applies them.
"""
