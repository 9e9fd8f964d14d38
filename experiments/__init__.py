"""One file, one reproducible result."""
