"""The benchmark: `make bench`. It is not part of the wheel."""
