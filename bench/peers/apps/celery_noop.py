"""The no-op of Celery: the task, and the HTTP service in front of it."""

import os
from typing import Any

from celery import Celery
from fastapi import FastAPI
from pydantic import BaseModel

STATUSES = {"SUCCESS": "Succeeded", "FAILURE": "Failed", "REVOKED": "Failed"}

queue = Celery("peers", broker=os.environ["REDIS_URL"] + "/0", backend=os.environ["REDIS_URL"] + "/1")
queue.conf.task_acks_late = True  # a task that its worker loses runs again, as with all other peers
queue.conf.broker_connection_retry_on_startup = True


class CeleryNumber(BaseModel):
    n: int


@queue.task
def noop(request: dict[str, Any]) -> dict[str, int]:
    return CeleryNumber.model_validate(request).model_dump()


app = FastAPI()


# Celery's client blocks, so these are no coroutines: FastAPI calls them in threads.
@app.post("/operations", status_code=202)
def submit(request: CeleryNumber) -> dict[str, str]:
    return {"id": noop.delay(request.model_dump()).id}


@app.get("/operations/{task}")
def read(task: str) -> dict[str, Any]:
    found = queue.backend.get_task_meta(task)
    status = STATUSES.get(found["status"], "Running")
    return {"id": task, "status": status, "result": found["result"] if status == "Succeeded" else None}
