"""Many runs: campaigns over seeds, their coverage, shrinking what failed, and the detector of hidden randomness."""
