"""What must be there for an action to be possible, and the sentence that says so where it is not."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

from quantgui.gui.texts import translate
from quantgui.session.session import Session


class Need(Enum):
    """What must be there for an action to be possible."""

    NETWORK = auto()
    LAYERS = auto()
    DATA = auto()
    SELECTION = auto()
    EDITABLE = auto()
    UNDO = auto()
    REDO = auto()
    NOT_EVALUATED = auto()
    NO_EXPORT_RUNNING = auto()
    NO_SWEEP_RUNNING = auto()
    NO_TRACE_RUNNING = auto()
    NO_TRAINING_RUNNING = auto()
    TRAINED = auto()
    QUANTIZED = auto()
    PINS = auto()
    JOBS = auto()


def why_not(needs: Sequence[Need], session: Session) -> str:
    """Return the sentence that says why an action is not possible now; empty where it is."""
    return next((sentence for need in needs if (sentence := _lack(need, session))), "")


def _lack(need: Need, session: Session) -> str:  # noqa: C901 -- one case for each need
    match need:
        case Need.NETWORK:
            return "" if session.summary is not None else translate("actions", "Open a network first.")
        case Need.LAYERS:
            has_layers = session.summary is None or bool(session.summary.layers)
            return "" if has_layers else translate("actions", "The network has no layer with weights.")
        case Need.DATA:
            return (
                "" if session.data is not None else translate("actions", "Open data first: quality is measured on it.")
            )
        case Need.SELECTION:
            return "" if session.selection else translate("actions", "Select a layer first.")
        case Need.EDITABLE:
            possible = any(session.is_editable(name) for name in session.selection)
            return "" if possible else translate("actions", "The selected layers cannot be changed.")
        case Need.UNDO:
            return "" if session.undo_stack.canUndo() else translate("actions", "There is nothing to undo.")
        case Need.REDO:
            return "" if session.undo_stack.canRedo() else translate("actions", "There is nothing to redo.")
        case Need.NOT_EVALUATED:
            if session.jobs.is_active("evaluate"):
                return translate("actions", "It is being evaluated.")
            return (
                translate("actions", "This configuration has been evaluated on all samples.")
                if session.store.is_evaluated(session.config)
                else ""
            )
        case Need.NO_EXPORT_RUNNING:
            return translate("actions", "An export is under way.") if session.jobs.is_active("export") else ""
        case Need.NO_SWEEP_RUNNING:
            return (
                translate("actions", "Sensitivity is being measured.") if session.jobs.is_active("sensitivity") else ""
            )
        case Need.PINS:
            return "" if None not in session.pins else translate("actions", "Pin two configurations as A and B first.")
        case Need.NO_TRACE_RUNNING:
            return translate("actions", "Noise is being traced.") if session.jobs.is_active("noise") else ""
        case Need.QUANTIZED:
            return "" if session.quantizes else translate("actions", "Every layer is float: quantize some first.")
        case Need.NO_TRAINING_RUNNING:
            return translate("actions", "The network is being trained.") if session.jobs.is_active("training") else ""
        case Need.TRAINED:
            training = session.training
            if training is None or training.trained is None:
                return translate("actions", "Nothing better has been found by training.")
            in_use = session.is_in_use(training.trained)
            return translate("actions", "The trained weights are in use.") if in_use else ""
        case Need.JOBS:
            return (
                ""
                if any(job.is_active for job in session.jobs)
                else translate("actions", "The engine has nothing to do.")
            )
