"""Benchmarks, side by side with what people use today: `make bench`, `make bench ROW=help`."""
