"""What fastmf claims about itself, and the programs that show it."""
