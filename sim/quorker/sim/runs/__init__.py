"""The course of a run, with bare Raft members or with job stores: suffer, heal, make progress, be scanned."""
