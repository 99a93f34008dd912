// What Muster tells of itself while it is looked at: `GET /v1/events`.

import { ask, reason, sentence } from "../api";
import type { components } from "../schema";
import { Store } from "../store";

type Schemas = components["schemas"];
export type Instance = Schemas["InstanceNow"];
export type Sample = Schemas["Sample"];
type Past = Schemas["History"];
export type Reason = Past["reasons"][number];

const COLUMNS = ["at_ms", "visible", "in_flight", "pending", "running", "draining", "answered", "p50", "p99"] as const;
type Column = (typeof COLUMNS)[number];
export type History = Record<Column, (number | null)[]>;

export interface Live {
  now: Sample | undefined;
  history: History;
  /** Newest first. */
  reasons: Reason[];
  /** Why nothing new is told, where that is so. */
  trouble: string;
}

/** How much is kept, as much as a server tells of the past. */
const KEPT_MS = 300_000;
const REASONS = 40;
/** Waits before a connection that broke is made anew. */
const AGAIN_MS = [500, 1000, 2000, 5000];

const empty = (): History => ({
  at_ms: [],
  visible: [],
  in_flight: [],
  pending: [],
  running: [],
  draining: [],
  answered: [],
  p50: [],
  p99: [],
});

export const live = new Store<Live>({ now: undefined, history: empty(), reasons: [], trouble: "" });

/** Listens until `signal`, over any break. */
export async function listen(signal: AbortSignal): Promise<void> {
  for (let broken = 0; !signal.aborted; broken += 1) {
    try {
      const response = await ask("v1/events", { signal, headers: { accept: "text/event-stream" } });
      await read(response, () => {
        broken = 0;
      });
      throw new Error("Muster has stopped talking: it may be starting anew.");
    } catch (error) {
      if (signal.aborted) return;
      live.change((before) => ({ ...before, trouble: reason(error) }));
    }
    await pause(AGAIN_MS[Math.min(broken, AGAIN_MS.length - 1)] ?? 5000, signal);
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const ended = () => {
      clearTimeout(timer);
      resolve();
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", ended);
      resolve();
    }, ms);
    signal.addEventListener("abort", ended, { once: true });
  });
}

/** Reads events; an `EventSource` could not send a key. */
async function read(response: Response, heard: () => void): Promise<void> {
  if (!response.body) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const events = text.split("\n\n");
    text = events.pop() ?? "";
    for (const event of events) {
      const [name, data] = event.split("\n");
      if (!name?.startsWith("event: ") || !data?.startsWith("data: ")) continue;
      heard();
      take(name.slice(7), JSON.parse(data.slice(6)));
    }
  }
}

function take(name: string, data: unknown): void {
  if (name === "history") {
    const { reasons, ...history } = data as Past;
    live.change(({ now }) => ({ now, history, reasons: reasons.toReversed(), trouble: "" }));
  } else if (name === "sample") {
    const sample = data as Sample;
    live.change((before) => ({
      now: sample,
      history: grown(before.history, sample),
      reasons: told(before.reasons, sample),
      trouble: "",
    }));
  } else if (name === "trouble") {
    const { detail } = data as Schemas["Trouble"];
    live.change((before) => ({ ...before, trouble: sentence(detail) }));
  }
}

function grown(history: History, sample: Sample): History {
  const row: Record<Column, number | null> = {
    at_ms: sample.at_ms,
    visible: sample.queue.visible,
    in_flight: sample.queue.in_flight,
    pending: sample.fleet.pending,
    running: sample.fleet.running,
    draining: sample.fleet.draining,
    answered: sample.requests.answered,
    p50: sample.latency_ms.p50,
    p99: sample.latency_ms.p99,
  };
  const from = history.at_ms.findIndex((at) => (at ?? 0) >= sample.at_ms - KEPT_MS);
  const kept = empty();
  for (const column of COLUMNS) kept[column] = [...(from < 0 ? [] : history[column].slice(from)), row[column]];
  return kept;
}

function told(reasons: Reason[], sample: Sample): Reason[] {
  const { reason } = sample.fleet;
  if (!reason || reasons[0]?.reason === reason) return reasons;
  return [{ at_ms: sample.at_ms, reason }, ...reasons].slice(0, REASONS);
}
