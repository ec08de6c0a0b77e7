"""The pure core of quorker: it decides everything and touches nothing. No clock, no disk, no network, no randomness."""
