"""Benches of the database: helpers that, unlike the other load tools, know its schema and functions."""
