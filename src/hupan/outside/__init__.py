"""What may fail: the database, the post, the clock, and pictures."""
