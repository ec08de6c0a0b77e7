"""Processes that ask and work: the very sessions and workers that users run, and what they ask for."""
