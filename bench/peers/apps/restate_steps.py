"""Three steps on Restate: a service with one handler, which the server calls."""

import restate
from pydantic import BaseModel


class RestateNumber(BaseModel):
    n: int


operations = restate.Service("operations")


async def add(number: int) -> int:
    return number + 1


@operations.handler()
async def noop(context: restate.Context, request: RestateNumber) -> RestateNumber:
    one = await context.run_typed("one", add, number=request.n)
    two = await context.run_typed("two", add, number=one)
    return RestateNumber(n=await context.run_typed("three", add, number=two) - 3)


app = restate.app([operations])
