"""What all layers use: atomic output files, checks of parameters, progress bars, JSON."""
