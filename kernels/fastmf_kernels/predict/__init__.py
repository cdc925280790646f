"""Ratings predicted for single (user, item) pairs."""
