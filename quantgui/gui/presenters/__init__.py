"""What connects the session with one panel each."""
