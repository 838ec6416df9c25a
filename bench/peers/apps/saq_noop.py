"""The no-op of SAQ: the worker's settings, and the HTTP service in front of the queue."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel
from saq import Queue
from saq.types import Context

KEPT = 3_600
"""Seconds for which a result can be read."""
STATUSES = {"complete": "Succeeded", "failed": "Failed", "aborted": "Failed"}

queue = Queue.from_url(os.environ["REDIS_URL"])


class SaqNumber(BaseModel):
    n: int


async def noop(_context: Context, *, request: dict[str, Any]) -> dict[str, int]:
    return SaqNumber.model_validate(request).model_dump()


settings = {"queue": queue, "functions": [noop], "concurrency": 10}


@asynccontextmanager
async def connected(_app: FastAPI) -> AsyncIterator[None]:
    await queue.connect()
    yield
    await queue.disconnect()


app = FastAPI(lifespan=connected)


@app.post("/operations", status_code=202)
async def submit(request: SaqNumber) -> dict[str, str]:
    job = await queue.enqueue("noop", request=request.model_dump(), ttl=KEPT)
    assert job is not None
    return {"id": job.key}


@app.get("/operations/{key}")
async def read(key: str) -> dict[str, Any]:
    job = await queue.job(key)
    if job is None:
        raise HTTPException(404)
    return {"id": key, "status": STATUSES.get(job.status, "Running"), "result": job.result}
