"""Small trained networks, their data, and the scripts that make them."""
