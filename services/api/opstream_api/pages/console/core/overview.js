// What the newest operations say together: rates, queues, failures, times. Pure.

const MINUTE = 60_000;

/** Return the value below which a share of sorted numbers lies. */
export function quantile(sorted, share) {
  if (!sorted.length) return undefined;
  return sorted[Math.min(Math.floor(sorted.length * share), sorted.length - 1)];
}

/** Return columns of one minute each, the newest last, with what ended and what was requested in it. */
export function minutes(items, now, count) {
  const last = Math.floor(now / MINUTE);
  const columns = Array.from({ length: count }, (_, index) => ({
    minute: last - count + 1 + index,
    requested: 0,
    Succeeded: 0,
    Failed: 0,
    Canceled: 0,
  }));
  const at = (time) => columns[Math.floor(time / MINUTE) - last + count - 1];
  for (const item of items) {
    const requested = at(Date.parse(item.createdAt));
    if (requested) requested.requested += 1;
    const ended = item.finishedAt && at(Date.parse(item.finishedAt));
    if (ended && item.status in ended) ended[item.status] += 1;
  }
  return columns;
}

/** Return what each action has open and what it has ended, the longest queue first. */
export function byAction(open, recent) {
  const found = new Map();
  const of = (kind) => {
    if (!found.has(kind)) found.set(kind, { kind, running: 0, waiting: 0, oldest: undefined, ended: 0, failed: 0, times: [] });
    return found.get(kind);
  };
  for (const item of open) {
    const action = of(item.kind);
    if (item.status === "Running") action.running += 1;
    else {
      action.waiting += 1;
      const begun = Date.parse(item.createdAt);
      action.oldest = Math.min(action.oldest ?? begun, begun);
    }
  }
  for (const item of recent) {
    if (!item.finishedAt) continue;
    const action = of(item.kind);
    action.ended += 1;
    if (item.status === "Failed") action.failed += 1;
    if (item.startedAt) action.times.push(Date.parse(item.finishedAt) - Date.parse(item.startedAt));
  }
  return [...found.values()]
    .map(({ times, ...action }) => {
      times.sort((one, other) => one - other);
      return { ...action, median: quantile(times, 0.5), slow: quantile(times, 0.95) };
    })
    .sort((one, other) => other.waiting - one.waiting || other.running - one.running || other.ended - one.ended);
}

/** Return how often each code ended an operation, the most frequent first. */
export function failureCodes(recent) {
  const found = new Map();
  for (const { status, error } of recent) {
    if (status === "Failed" && error) found.set(String(error.code), (found.get(String(error.code)) ?? 0) + 1);
  }
  return [...found].sort((one, other) => other[1] - one[1]);
}
