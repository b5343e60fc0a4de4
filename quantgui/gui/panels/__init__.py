"""What stands in the docks and tabs of the window. Values in (`show_...`), past-tense signals out."""
