"""Three steps on DBOS: a workflow on PostgreSQL, and the HTTP service that starts it."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from dbos import DBOS
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

STATUSES = {"SUCCESS": "Succeeded", "ERROR": "Failed", "CANCELLED": "Failed"}


class DbosNumber(BaseModel):
    n: int


@DBOS.step()
async def add(number: int) -> int:
    return number + 1


@DBOS.workflow()
async def steps(number: int) -> dict[str, int]:
    one = await add(number)
    two = await add(one)
    return {"n": await add(two) - 3}


@asynccontextmanager
async def launched(_app: FastAPI) -> AsyncIterator[None]:
    DBOS(config={"name": "peers", "system_database_url": os.environ["DATABASE_URL"], "log_level": "WARNING"})
    DBOS.launch()
    yield
    DBOS.destroy()


app = FastAPI(lifespan=launched)


@app.post("/operations", status_code=202)
async def submit(request: DbosNumber) -> dict[str, str]:
    handle = await DBOS.start_workflow_async(steps, request.n)
    return {"id": handle.workflow_id}


@app.get("/operations/{key}")
async def read(key: str) -> dict[str, Any]:
    found = await DBOS.get_workflow_status_async(key)
    if found is None:
        raise HTTPException(404)
    return {"id": key, "status": STATUSES.get(found.status, "Running"), "result": found.output}
