"""Cases as data: what a run is made of, how a seed expands into one, and how files, tokens and strategies say it."""
