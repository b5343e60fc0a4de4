"""Dialogs: values in, past-tense signals out, as panels."""
