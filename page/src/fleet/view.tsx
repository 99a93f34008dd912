import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import { clock, count, duration, milliseconds } from "../words";
import { burst, send, stop } from "./burst";
import { Chart } from "./chart";
import { type Instance, type Live, type Sample, listen, live } from "./live";
import { drawn } from "./series";

/** A controller says at least once a minute that it is there. */
const SILENT_MS = 90_000;
/** Places drawn for instances at most. */
const PLACES = 60;

export function Fleet() {
  const state = live.use();
  const [span, setSpan] = useState(60);
  useEffect(() => {
    const stopped = new AbortController();
    void listen(stopped.signal);
    return () => stopped.abort();
  }, []);
  const { now, trouble } = state;
  return (
    <div class="fleet">
      <div class="title">
        <h1>Fleet</h1>
        <Burst />
      </div>
      {trouble && (
        <p role="alert" class="trouble">
          {trouble}
        </p>
      )}
      {now ? (
        <>
          <Roll now={now} />
          <Charts state={state} now={now} span={span} setSpan={setSpan} />
          <div class="columns">
            <Instances now={now} />
            <Reasons state={state} />
          </div>
        </>
      ) : (
        !trouble && (
          <p role="status" class="hint">
            Looking how the fleet fares…
          </p>
        )
      )}
    </div>
  );
}

/** The fleet in one sentence, and a place for each instance that there could be. */
function Roll({ now }: { now: Sample }) {
  const { fleet } = now;
  const on = fleet.running + fleet.pending + fleet.draining;
  const silent = now.at_ms - fleet.observed_at_ms;
  const places = Math.min(Math.max(fleet.max, on), PLACES);
  const states = fleet.instances.map((one) => one.state);
  return (
    <section class="roll-call" aria-label="Now">
      <p class="lead" role="status">
        {headline(now)}
      </p>
      <div class="places" role="img" aria-label={`${on} of at most ${count(fleet.max, "worker")}`}>
        {Array.from({ length: places }, (_, n) => (
          <i class={states[n] ?? "none"} />
        ))}
        {fleet.max > PLACES && <span>of {fleet.max}</span>}
      </div>
      {fleet.observed_at_ms === 0 ? (
        <p class="trouble">
          No controller has run on this store yet, so no worker is started: run muster controller, or muster up.
        </p>
      ) : (
        silent > SILENT_MS && (
          <p class="trouble">
            The controller was last heard from {duration(silent / 1000)} ago. The workers below are as it saw them then;
            the backlog and the answers are of this moment.
          </p>
        )
      )}
    </section>
  );
}

function headline({ fleet, queue, requests }: Sample): string {
  const backlog = Math.max(queue.visible + queue.in_flight, requests.waiting);
  const workers = [
    fleet.running && count(fleet.running, "worker"),
    fleet.pending && `${fleet.pending} starting`,
    fleet.draining && `${fleet.draining} leaving`,
  ].filter(Boolean);
  const waits = backlog ? `${count(backlog, "photograph")} under way` : "nothing to do";
  if (!workers.length) return backlog ? `No workers yet, ${waits}.` : "No workers, nothing to do.";
  return `${workers.join(", ")}; ${waits}.`;
}

function Charts(props: { state: Live; now: Sample; span: number; setSpan: (span: number) => void }) {
  const { state, now, span } = props;
  const lines = useMemo(() => drawn(state.history), [state.history]);
  const at = { at: lines.at, now: now.at_ms / 1000, span };
  const rate = lines.rate.at(-1) ?? 0;
  const { p50, p99 } = now.latency_ms;
  return (
    <section aria-labelledby="charts">
      <div class="subtitle">
        <h2 id="charts">The last {span === 60 ? "minute" : "five minutes"}</h2>
        <fieldset class="switch">
          <legend class="unseen">Time shown</legend>
          {[60, 300].map((one) => (
            <label>
              <input type="radio" name="span" checked={span === one} onChange={() => props.setSpan(one)} />
              <span>{one / 60} min</span>
            </label>
          ))}
        </fieldset>
      </div>
      <div class="charts">
        <Chart
          title="Backlog"
          said={`${now.queue.visible} waiting, ${now.queue.in_flight} at a worker`}
          {...at}
          least={4}
          curves={[
            { name: "waiting", colour: "amber", values: lines.waiting, filled: true, stepped: true },
            { name: "at a worker", colour: "accent", values: lines.working, stepped: true },
          ]}
        />
        <Chart
          title="Workers"
          said={`${now.fleet.running} running, ${now.fleet.pending} starting, ${now.fleet.draining} leaving`}
          {...at}
          least={2}
          curves={[
            { name: "starting", colour: "amber", values: lines.booting, filled: true, stepped: true },
            { name: "leaving", colour: "muted", values: lines.draining, filled: true, stepped: true },
            { name: "running", colour: "accent", values: lines.running, filled: true, stepped: true },
          ]}
        />
        <Chart
          title="Answers"
          said={`${rate < 10 ? rate.toFixed(1) : Math.round(rate)} a second, ${now.requests.answered.toLocaleString("en-GB")} so far${
            now.requests.failed ? `, ${now.requests.failed} failed` : ""
          }`}
          {...at}
          least={10}
          curves={[{ name: "a second", colour: "accent", values: lines.rate, filled: true }]}
        />
        <Chart
          title="Time to the answer"
          said={
            p50 === null || p99 === null
              ? "no answers in the last ten seconds"
              : `half within ${milliseconds(p50)}, 99 % within ${milliseconds(p99)}`
          }
          {...at}
          least={100}
          written={milliseconds}
          curves={[
            { name: "99 %", colour: "amber", values: lines.p99 },
            { name: "half", colour: "accent", values: lines.p50 },
          ]}
        />
      </div>
    </section>
  );
}

const STATES: Record<Instance["state"], string> = { pending: "starting", running: "running", draining: "leaving" };

function Instances({ now }: { now: Sample }) {
  const { instances, observed_at_ms } = now.fleet;
  const since = Math.max(0, now.at_ms - observed_at_ms) / 1000;
  return (
    <section aria-labelledby="instances">
      <h2 id="instances">Workers</h2>
      {instances.length === 0 ? (
        <p class="hint">None. The next photograph starts one.</p>
      ) : (
        <table>
          <thead>
            <tr>
              <th scope="col">Name</th>
              <th scope="col">State</th>
              <th scope="col" class="figure">
                Age
              </th>
              <th scope="col" class="figure">
                Answers
              </th>
            </tr>
          </thead>
          <tbody>
            {instances.map((one) => (
              <tr key={one.id}>
                <th scope="row" class="code">
                  {one.id}
                </th>
                <td>
                  <i class={`dot ${one.state}`} />
                  {STATES[one.state]}
                  {one.busy !== undefined && one.state === "running" && (one.busy ? ", busy" : ", idle")}
                </td>
                <td class="figure">{duration(one.age_s + since)}</td>
                <td class="figure">{one.answered.toLocaleString("en-GB")}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </section>
  );
}

function Reasons({ state }: { state: Live }) {
  return (
    <section aria-labelledby="reasons">
      <h2 id="reasons">What the planner says</h2>
      {state.reasons.length === 0 ? (
        <p class="hint">Nothing yet.</p>
      ) : (
        <ol class="reasons" tabIndex={0} aria-labelledby="reasons">
          {state.reasons.map((one) => (
            <li key={one.at_ms}>
              <time dateTime={new Date(one.at_ms).toISOString()}>{clock(one.at_ms)}</time>
              <span>{one.reason}</span>
            </li>
          ))}
        </ol>
      )}
    </section>
  );
}

function Burst() {
  const now = burst.use();
  const [wanted, setWanted] = useState(60);
  const [own, setOwn] = useState<File[]>([]);
  const input = useRef<HTMLInputElement>(null);
  return (
    <div class="burst">
      <div class="actions">
        <label class="unseen" for="wanted">
          Photographs in a burst
        </label>
        <select id="wanted" value={wanted} onChange={(event) => setWanted(Number(event.currentTarget.value))}>
          {[20, 60, 200, 1000].map((n) => (
            <option value={n}>{n} photographs</option>
          ))}
        </select>
        <label class="unseen" for="source">
          Of what
        </label>
        <select
          id="source"
          value={own.length ? "own" : "samples"}
          onChange={(event) => {
            if (event.currentTarget.value !== "own") return setOwn([]);
            // Until photographs are chosen, which may not come to be, it stays as it is.
            event.currentTarget.value = own.length ? "own" : "samples";
            input.current?.click();
          }}
        >
          <option value="samples">of the samples</option>
          <option value="own">{own.length ? `of ${count(own.length, "photograph")}` : "of my own…"}</option>
        </select>
        <input
          ref={input}
          type="file"
          accept="image/*"
          multiple
          class="unseen"
          tabIndex={-1}
          aria-label="Photographs for the burst"
          onChange={(event) => setOwn([...(event.currentTarget.files ?? [])])}
        />
        {now?.running ? (
          <button type="button" onClick={stop}>
            Stop
          </button>
        ) : (
          <button type="button" class="primary" onClick={() => send(wanted, own)}>
            Send a burst
          </button>
        )}
      </div>
      {now && (
        <div class="progress">
          {now.running && <progress max={now.wanted} value={now.answered + now.failed} aria-label="Photographs answered" />}
          <p role="status" class="hint">
            {now.answered} of {now.wanted} answered{now.failed > 0 && `, ${now.failed} failed`}
          </p>
          {now.trouble && (
            <p role="alert" class="trouble">
              {now.trouble}
            </p>
          )}
        </div>
      )}
    </div>
  );
}
