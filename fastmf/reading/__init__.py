"""Reads Parquet, text and arrays into ratings with dense indices, and splits them."""
