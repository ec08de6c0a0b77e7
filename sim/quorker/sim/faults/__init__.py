"""Performs what a case says goes wrong: on nodes, clocks, files and links. What may go wrong at all stands in `cases`."""
