"""The command line: the window, and the same analyses without one; one module for each command, `main` starts them."""
