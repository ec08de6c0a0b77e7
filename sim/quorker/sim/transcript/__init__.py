"""Transcripts in the language of etcd's interaction tests: commands in, what happened out, compared line by line.

`directives` runs one over a small cluster of our Raft members; deliberate differences stand in `deviations`.
"""
