"""Small symmetric linear systems."""
