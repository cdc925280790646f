"""Ratings as rows: coordinate triples to compressed sparse rows, by stable counting sort."""
