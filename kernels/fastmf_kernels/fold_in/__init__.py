"""Gradient steps for the factors of new users or items, the other side being fixed."""
