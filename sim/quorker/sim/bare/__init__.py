"""Members and stores driven by hand without a world: for tests of single answers and random schedules."""
