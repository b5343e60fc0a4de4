"""What a job waits for, in words."""

from __future__ import annotations

from quantgui.gui.texts import translate
from quantgui.session.jobs import JobList, JobState


def is_waiting(jobs: JobList, topic: str) -> bool:
    """Return whether the newest job of `topic` waits for another one."""
    job = jobs.of_topic(topic)
    return job is not None and job.state is JobState.WAITING


def waiting_words(jobs: JobList, topic: str) -> str:
    """Return for which job that of `topic` waits; empty where it waits for none."""
    if not is_waiting(jobs, topic):
        return ""
    running = next((job for job in jobs if job.state is JobState.RUNNING), None)
    if running is None:
        return translate("waiting", "Waiting for other work of the engine.")
    return translate("waiting", "Waiting for: {job}.").format(job=running.title)
