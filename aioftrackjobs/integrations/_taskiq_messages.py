"""What a message of taskiq says of its Job: its text, and whether its task is tried again."""

from __future__ import annotations

from typing import Any

from taskiq import Context, SimpleRetryMiddleware, SmartRetryMiddleware, TaskiqMessage

from aioftrackjobs.integrations._tasks import next_attempt, values_of
from aioftrackjobs.jobs.ending import describe_failure
from aioftrackjobs.running.running_job import RunningJob


def job_values(message: TaskiqMessage) -> dict[str, Any]:
    """Return the description and the user of the Job of a task, by its labels."""
    text = str(message.labels.get("ftrack_job", message.task_name))
    user = message.labels.get("ftrack_user")
    return values_of(text, user, message.args, message.kwargs)


def decide_end(job: RunningJob, context: Context, error: BaseException) -> None:
    """Decide how a Job ends, as the middlewares decide whether its task is tried again."""
    labels, why = context.message.labels, describe_failure(error)
    if isinstance(error, TimeoutError) and (timeout := labels.get("timeout")) is not None:
        why = f"timed out after {float(timeout):g} s"
    for each in context.broker.middlewares:
        if isinstance(each, (SimpleRetryMiddleware, SmartRetryMiddleware)):
            kinds = each._get_types_of_exceptions(context.message)
            tries = str(labels.get("retry_on_error", each.default_retry_label)).lower() == "true"
            attempt = int(labels.get("_retries", 0)) + 2
            most = int(labels.get("max_retries", each.default_retry_count))
            if tries and attempt <= most and (kinds is None or isinstance(error, tuple(kinds))):
                job.requeue(next_attempt(attempt, retries=most - 1, after=why))
    if why.startswith("timed out"):
        job.fail(why)
