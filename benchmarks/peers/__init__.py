"""One process a library, each doing the same work; run by benchmarks/compare.py."""
