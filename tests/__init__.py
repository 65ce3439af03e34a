"""The tests: through the front door, on real databases. Only post and clock are ours."""
