// The photographs that were given to be recognised, and how far each is.

import { type Recognition, reason, recognise } from "../api";
import { Store } from "../store";

export interface Shot {
  id: number;
  file: File;
  url: string;
  state: "waiting" | "sending" | "done" | "failed";
  /** The last answer; it stays while the photograph is looked at again. */
  result?: Recognition;
  error?: string;
}

export interface Shots {
  list: Shot[];
  chosen: number | undefined;
}

/** Photographs under way at one time: a browser opens six connections to a server. */
const AT_ONCE = 4;

export const shots = new Store<Shots>({ list: [], chosen: undefined });
let next = 1;
let under_way = 0;

export function add(files: Iterable<File>): void {
  const fresh = [...files].map((file): Shot => {
    return { id: next++, file, url: URL.createObjectURL(file), state: "waiting" };
  });
  const [first] = fresh;
  if (!first) return;
  shots.change(({ list }) => ({ list: [...list, ...fresh], chosen: first.id }));
  pump();
}

export function choose(id: number): void {
  shots.change(({ list }) => ({ list, chosen: id }));
}

export function clear(): void {
  for (const shot of shots.value.list) URL.revokeObjectURL(shot.url);
  shots.change(() => ({ list: [], chosen: undefined }));
}

/** Looks at a photograph again, as after somebody was enrolled. */
export function again(id: number): void {
  update(id, { state: "waiting" });
  pump();
}

function update(id: number, change: Partial<Shot>): void {
  shots.change(({ list, chosen }) => ({
    list: list.map((shot) => (shot.id === id ? { ...shot, ...change } : shot)),
    chosen,
  }));
}

function pump(): void {
  while (under_way < AT_ONCE) {
    const shot = shots.value.list.find((one) => one.state === "waiting");
    if (!shot) return;
    under_way += 1;
    void send(shot).finally(() => {
      under_way -= 1;
      pump();
    });
  }
}

async function send(shot: Shot): Promise<void> {
  update(shot.id, { state: "sending" });
  try {
    update(shot.id, { state: "done", result: await recognise(shot.file), error: "" });
  } catch (error) {
    update(shot.id, { state: "failed", error: reason(error) });
  }
}

/** Whom a photograph shows, in a few words. */
export function summary(shot: Shot): string {
  if (shot.state === "waiting") return "waits";
  if (shot.state === "sending") return "is being looked at";
  if (shot.state === "failed" || !shot.result) return "failed";
  const names = shot.result.faces.flatMap((face) => (face.person ? [face.person.name] : []));
  const others = shot.result.faces.length - names.length;
  if (others) names.push(others === 1 ? "1 unknown" : `${others} unknown`);
  return names.join(", ");
}
