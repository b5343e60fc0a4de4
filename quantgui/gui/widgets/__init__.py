"""Parts of the window that know nothing of networks: cards, buttons in a row, key numbers, states."""
