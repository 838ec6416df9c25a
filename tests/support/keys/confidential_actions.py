"""A confidential action that says what its input says in every way that an action has, and its like in the clear."""

import msgspec

from opstream import ActionContext, ActionError, RetryAfter, action


class Person(msgspec.Struct, forbid_unknown_fields=True):
    """Who is checked, and how it ends: `succeed`, `fail`, `raise`, `sleep` or `misuse`."""

    secret: str
    end: str = "succeed"
    asks: bool = False


class Checked(msgspec.Struct):
    """What came of it."""

    said: list[str]


def look_up(secret: str) -> str:
    """Return what is known."""
    return f"looked up {secret}"


def refuse(secret: str) -> str:
    """Fail, and say of whom."""
    raise ActionError("Refused", f"no entry of {secret}", target=secret)


async def _check(request: Person, ctx: ActionContext) -> Checked:
    said = [await ctx.step("look up", look_up, request.secret)]
    await ctx.progress(50, f"at {request.secret}")
    if request.asks:
        said.append((await ctx.wait_for("approval", dict[str, str], timeout=60))["note"])
    if ctx.attempt == 1 and request.end in {"fail", "raise"}:
        raise RetryAfter(0.01, f"{request.secret} is busy")
    match request.end:
        case "fail":
            await ctx.step("refuse", refuse, request.secret)
        case "raise":
            raise LookupError(request.secret)
        case "misuse":
            await ctx.step("look up", look_up, request.secret)
        case "sleep":
            await ctx.sleep(3600)
    return Checked([*said, request.secret])


@action("person:check", confidential=True, max_attempts=2, backoff=0.01)
async def check(request: Person, ctx: ActionContext) -> Checked:
    """Look someone up, and tell nobody."""
    return await _check(request, ctx)


@action("person:check-apart", confidential=True, isolation="process", max_attempts=2, backoff=0.01)
async def check_apart(request: Person, ctx: ActionContext) -> Checked:
    """Do the same in a process of its own."""
    return await _check(request, ctx)


@action("person:list", max_attempts=2, backoff=0.01)
async def list_(request: Person, ctx: ActionContext) -> Checked:
    """Do the same in the clear."""
    return await _check(request, ctx)
