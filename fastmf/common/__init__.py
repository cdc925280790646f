"""What every room uses: files that appear whole or not at all, checks of parameters, progress."""
