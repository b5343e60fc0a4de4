"""Plots; the only importers of pyqtgraph. Values in (`show_...`), past-tense signals out."""
