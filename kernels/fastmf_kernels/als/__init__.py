"""Alternating least squares: one side solved exactly while the other is fixed."""
