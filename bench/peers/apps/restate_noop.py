"""The no-op of Restate: a service with one handler, which the server calls."""

import restate
from pydantic import BaseModel


class RestateNumber(BaseModel):
    n: int


operations = restate.Service("operations")


@operations.handler()
async def noop(_context: restate.Context, request: RestateNumber) -> RestateNumber:
    return request


app = restate.app([operations])
