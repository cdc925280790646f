"""A new order for lists of recommendations: items that differ, caps on categories, and places for new items."""
