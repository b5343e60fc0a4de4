"""The open document: configuration, undo, results. QtCore and QUndoStack, no widgets."""
