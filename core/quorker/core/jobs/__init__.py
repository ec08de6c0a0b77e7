"""The replicated job store: a pure, deterministic state machine that knows jobs and nothing of Raft.

`commands` is what can be asked of it, `records` what it holds, `tables` where it holds it, `store` how a log
entry becomes effects. Nothing here reads a clock, draws a random number or does I/O.
"""
