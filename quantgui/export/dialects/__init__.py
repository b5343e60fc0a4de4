"""Files of other tools: one module for each, `table.py` lists them."""
