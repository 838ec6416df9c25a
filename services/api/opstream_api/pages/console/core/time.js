// Times and durations as people read them.

const UNITS = [
  [86_400_000, "d"],
  [3_600_000, "h"],
  [60_000, "min"],
  [1000, "s"],
];

/** Return milliseconds in at most two units: `820 ms`, `4.2 s`, `3 min 5 s`, `2 d 4 h`. */
export function duration(milliseconds) {
  const left = Math.max(0, milliseconds);
  if (left < 1) return "0 ms";
  if (left < 999.5) return `${Math.round(left)} ms`;
  if (left < 9950) return `${(left / 1000).toFixed(1)} s`;
  let rest = Math.round(left / 1000) * 1000;
  const words = [];
  for (const [size, unit] of UNITS) {
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count) words.push(`${count} ${unit}`);
    if (words.length === 2 || (words.length && !count)) break;
  }
  return words.join(" ");
}

/** Return how long ago a moment was, or in how long it will be. */
export function ago(moment, now) {
  const difference = now - moment;
  if (Math.abs(difference) < 1500) return "now";
  const text = duration(Math.round(Math.abs(difference) / 1000) * 1000).replace(".0 s", " s").split(" ").slice(0, 2).join(" ");
  return difference > 0 ? `${text} ago` : `in ${text}`;
}

const DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric" });
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });

/** Return a moment in the reader's time zone: `30 Nov 2026, 09:41:07`. */
export function moment(milliseconds) {
  return `${DAY.format(milliseconds)}, ${CLOCK.format(milliseconds)}`;
}

/** Return the time of a day with milliseconds: `09:41:07.214`. */
export function clock(milliseconds) {
  return `${CLOCK.format(milliseconds)}.${String(Math.floor(milliseconds % 1000)).padStart(3, "0")}`;
}

/** Return a step for an axis of so many milliseconds, of which about `count` fit in: 1, 2 or 5 of a unit. */
export function tickStep(span, count) {
  const wanted = span / count;
  const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500];
  for (const [size, multiples] of [
    [1000, [1, 2, 5, 10, 15, 30]],
    [60_000, [1, 2, 5, 10, 15, 30]],
    [3_600_000, [1, 2, 3, 6, 12]],
    [86_400_000, [1, 2, 5, 10, 20, 50, 100, 200, 500]],
  ]) {
    steps.push(...multiples.map((multiple) => multiple * size));
  }
  return steps.find((step) => step >= wanted) ?? steps.at(-1);
}
