// What the newest operations say together: rates, queues, failures, times. Pure.

const MINUTE = 60_000;

/** Return the value below which a share of sorted numbers lies. */
export function quantile(sorted, share) {
  if (!sorted.length) return undefined;
  return sorted[Math.min(Math.floor(sorted.length * share), sorted.length - 1)];
}

/** Return columns of one minute each, the newest last, with what ended and what was requested in it. */
export function minutes(requested, ended, now, count) {
  const last = Math.floor(now / MINUTE);
  const columns = Array.from({ length: count }, (_, index) => ({
    minute: last - count + 1 + index,
    requested: 0,
    Succeeded: 0,
    Failed: 0,
    Canceled: 0,
  }));
  const at = (time) => columns[Math.floor(time / MINUTE) - last + count - 1];
  for (const item of requested) {
    const column = at(Date.parse(item.createdAt));
    if (column) column.requested += 1;
  }
  for (const item of ended) {
    const column = at(Date.parse(item.finishedAt));
    if (column && item.status in column) column[item.status] += 1;
  }
  return columns;
}

/** Return what each action has open and what of it has ended, the longest queue first. */
export function byAction(open, ended) {
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
  for (const item of ended) {
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
export function failureCodes(ended) {
  const found = new Map();
  for (const { status, error } of ended) {
    if (status === "Failed" && error) found.set(String(error.code), (found.get(String(error.code)) ?? 0) + 1);
  }
  return [...found].sort((one, other) => other[1] - one[1]);
}
