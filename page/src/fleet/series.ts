// From samples to what is drawn.

import type { History } from "./live";

export type Line = (number | null)[];

/** Answers are counted over this time, so that single ones do not flicker. */
const RATE_MS = 1000;
/** Nothing is drawn across a longer time without samples. */
const GAP_MS = 3000;

export interface Drawn {
  /** Seconds since the epoch. */
  at: number[];
  waiting: Line;
  working: Line;
  running: Line;
  booting: Line;
  draining: Line;
  rate: Line;
  p50: Line;
  p99: Line;
}

/** The lines of all charts, broken where nobody looked. */
export function drawn(history: History): Drawn {
  const lines: Drawn = {
    at: [],
    waiting: [],
    working: [],
    running: [],
    booting: [],
    draining: [],
    rate: [],
    p50: [],
    p99: [],
  };
  const at = history.at_ms as number[];
  const answered = history.answered as number[];
  let since = 0;
  let begun = 0;
  at.forEach((now, n) => {
    const before = at[n - 1];
    if (before !== undefined && now - before > GAP_MS) {
      push(lines, before / 1000 + 0.001, { waiting: null });
      begun = n;
    }
    // The newest sample that is old enough to count from, within the same stretch.
    while (since + 1 < n && (at[since + 1] ?? 0) <= now - RATE_MS) since += 1;
    since = Math.max(since, begun);
    const span = now - (at[since] ?? now);
    const more = (answered[n] ?? 0) - (answered[since] ?? 0);
    const running = history.running[n] ?? 0;
    const draining = history.draining[n] ?? 0;
    const booting = history.pending[n] ?? 0;
    push(lines, now / 1000, {
      waiting: history.visible[n] ?? 0,
      working: history.in_flight[n] ?? 0,
      // Drawn on top of each other.
      running,
      draining: running + draining,
      booting: running + draining + booting,
      // A service that began anew counts from nothing.
      rate: span > 0 ? (Math.max(0, more) / span) * 1000 : null,
      p50: history.p50[n] ?? null,
      p99: history.p99[n] ?? null,
    });
  });
  return lines;
}

function push(lines: Drawn, at: number, row: Partial<Record<Exclude<keyof Drawn, "at">, number | null>>): void {
  lines.at.push(at);
  for (const name of ["waiting", "working", "running", "booting", "draining", "rate", "p50", "p99"] as const) {
    lines[name].push(row[name] ?? null);
  }
}
