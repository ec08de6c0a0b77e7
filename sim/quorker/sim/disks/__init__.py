"""Simulated disks: of Raft records, and of the very files of the real storage, with all that a crash or age does to them."""
