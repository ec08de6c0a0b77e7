"""The job store said in the simplest way, and the witness that holds every reply of a run against it."""
