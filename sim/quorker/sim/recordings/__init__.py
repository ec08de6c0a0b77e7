"""What flight recorders of real members wrote down: replayed through the pure core, and told as one story."""
