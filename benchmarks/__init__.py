"""Measurements. Each module is a script that prints a table."""
