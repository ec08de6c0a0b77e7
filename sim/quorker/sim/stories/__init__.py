"""What happened in a run, for people: events and their causes, in words, and as a space-time diagram."""
