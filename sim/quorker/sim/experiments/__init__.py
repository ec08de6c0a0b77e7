"""Runs to look into from a notebook or a prompt, experiments over many of them, and their figures."""
