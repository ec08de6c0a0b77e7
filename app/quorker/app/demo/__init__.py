"""`quorker demo`: a real cluster loses its leader, then everything, and no acknowledged job is lost.

Three members run as processes on this machine while clients enqueue; leaders are killed with SIGKILL while jobs run and
restarted from their disks, at last all members at once. What really ran is written down outside the cluster (`ledger`);
the end compares what was acknowledged with what the store says and with what ran (`verdict`).
"""
