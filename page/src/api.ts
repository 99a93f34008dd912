// What the page asks of Muster: types as the API's own document has them, and one way to ask.

import type { components } from "./schema";

type Schemas = components["schemas"];

export type PersonRef = Schemas["PersonRef"];
export type Face = Schemas["FaceReport"];
export type Recognition = Schemas["Recognition"];
export type Person = Schemas["PersonView"];
export type PeoplePage = Schemas["People"];
export type Receipt = Schemas["Receipt"];
export type Health = Schemas["Health"];
export type Sample = Schemas["SamplePhotograph"];
export type Problem = Schemas["Problem"];

/** An answer that is no success, with the sentence to show. */
export class Refusal extends Error {
  readonly status: number;
  readonly code: string;
  /** Who has the name already, where that is the reason. */
  readonly person: string | undefined;

  constructor(status: number, code: string, detail: string, person?: string) {
    super(detail);
    this.status = status;
    this.code = code;
    this.person = person;
  }
}

const KEY = "muster.key";
let listener: ((needed: boolean) => void) | undefined;
let asked: { answer: Promise<boolean>; settle: (given: boolean) => void } | undefined;

/** Tells `listen` when a key is needed, whereupon it calls `giveKey` or `keepKey`, and when it is no more. */
export function whenKeyIsNeeded(listen: (needed: boolean) => void): void {
  listener = listen;
}

export function hasKey(): boolean {
  return sessionStorage.getItem(KEY) !== null;
}

export function giveKey(key: string): void {
  sessionStorage.setItem(KEY, key);
  asked?.settle(true);
  asked = undefined;
  listener?.(false);
}

/** Takes the local token that a link to the page carries as `#token=…`, and leaves it in no address and no history. */
export function takeToken(): void {
  const token = /^#token=(\w+)$/.exec(location.hash)?.[1];
  if (!token) return;
  history.replaceState(null, "", location.pathname + location.search);
  giveKey(token);
}

/** Goes on without a key, so that what was asked fails. */
export function keepKey(): void {
  asked?.settle(false);
  asked = undefined;
}

function askForKey(): Promise<boolean> {
  if (!asked) {
    let settle: (given: boolean) => void = () => {};
    const answer = new Promise<boolean>((resolve) => {
      settle = resolve;
    });
    asked = { answer, settle };
    listener?.(true);
  }
  return asked.answer;
}

/** Asks; on 401 once more with each key that the user gives. Throws `Refusal` where it is refused. */
export async function ask(path: string, init: RequestInit = {}): Promise<Response> {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const headers = new Headers(init.headers);
    if (key) headers.set("authorization", `Bearer ${key}`);
    let response: Response;
    try {
      response = await fetch(path, { ...init, headers });
    } catch (error) {
      if (init.signal?.aborted) throw error;
      throw new Refusal(0, "unreachable", "Muster does not answer: see whether it still runs, and try again.");
    }
    if (response.ok) return response;
    // Another call may have been given a key meanwhile.
    const given = sessionStorage.getItem(KEY);
    if (response.status === 401 && ((given !== null && given !== key) || (await askForKey()))) continue;
    throw await refusal(response);
  }
}

async function refusal(response: Response): Promise<Refusal> {
  let problem: Partial<Problem> = {};
  try {
    problem = (await response.json()) as Problem;
  } catch {
    // Not Muster itself, but something in between.
  }
  const several = problem.refused && problem.refused.length > 1;
  const detail = several ? problem.refused?.map((one) => one.detail).join(" ") : problem.detail;
  return new Refusal(
    response.status,
    problem.code ?? "unknown",
    sentence(detail ?? `the answer was ${response.status}, and no more was said: try again.`),
    problem.person_id ?? undefined,
  );
}

/** Makes of what the API says a sentence that stands alone. */
export function sentence(text: string): string {
  const end = /[.!?…]$/.test(text) ? "" : ".";
  return text.charAt(0).toUpperCase() + text.slice(1) + end;
}

export function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

async function json<T>(path: string, init?: RequestInit): Promise<T> {
  return (await ask(path, init)).json() as Promise<T>;
}

function body(method: string, value: unknown): RequestInit {
  return { method, headers: { "content-type": "application/json" }, body: JSON.stringify(value) };
}

function form(fields: Record<string, string>, photos: Blob[] = []): FormData {
  const data = new FormData();
  for (const [name, value] of Object.entries(fields)) data.append(name, value);
  for (const photo of photos) data.append("image", photo, photo instanceof File ? photo.name : "photo.jpg");
  return data;
}

/** A face of an earlier answer. */
export type Seen = Required<Schemas["WrongAnswer"]>;

/** Whether faces are enrolled that do not meet the limits. */
const accepting = (unfit: boolean): Record<string, string> => (unfit ? { accept_unfit: "true" } : {});

const seen = (face: Seen) => ({ request_id: face.request_id, face: String(face.face) });
const person = (id: string) => `v1/people/${encodeURIComponent(id)}`;

export const recognise = (photo: Blob, signal?: AbortSignal) =>
  json<Recognition>("v1/recognize", { method: "POST", body: form({}, [photo]), ...(signal ? { signal } : {}) });

/** What came of one of several photographs. */
export type Outcome = Schemas["PhotoResult"];

/** Several photographs in one request: a browser opens few connections. */
export const recogniseAll = async (photos: Blob[], signal: AbortSignal) =>
  (await json<Schemas["Recognitions"]>("v1/recognize", { method: "POST", body: form({}, photos), signal })).results;

export function people(query: { name?: string; after?: string; limit?: number }): Promise<PeoplePage> {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value) search.set(name, String(value));
  return json<PeoplePage>(`v1/people?${search}`);
}

export const show = (id: string) => json<Person>(person(id));

export const enrol = (name: string, what: Blob[] | Seen, acceptUnfit: boolean) => {
  const fields = { name, ...accepting(acceptUnfit) };
  return json<Person>("v1/people", {
    method: "POST",
    body: Array.isArray(what) ? form(fields, what) : form({ ...fields, ...seen(what) }),
  });
};

/** Enrols a face by a name, as one more face of whoever has it already. */
export async function enrolAs(name: string, face: Seen, acceptUnfit: boolean): Promise<Person> {
  try {
    return await enrol(name, face, acceptUnfit);
  } catch (error) {
    if (error instanceof Refusal && error.person !== undefined) return addFaces(error.person, face, acceptUnfit);
    throw error;
  }
}

export const addFaces = (id: string, what: Blob[] | Seen, acceptUnfit: boolean) => {
  const fields = accepting(acceptUnfit);
  return json<Person>(`${person(id)}/faces`, {
    method: "POST",
    body: Array.isArray(what) ? form(fields, what) : form({ ...fields, ...seen(what) }),
  });
};

export const rename = (id: string, name: string) => json<Person>(person(id), body("PATCH", { name }));

export const merge = (id: string, from: string) => json<Person>(`${person(id)}/merge`, body("POST", { from }));

export const remove = (id: string) =>
  json<Schemas["Deletion"]>(person(id), { method: "DELETE" });

export const removeFace = (id: string, face: string) =>
  json<Schemas["FaceDeletion"]>(`${person(id)}/faces/${encodeURIComponent(face)}`, { method: "DELETE" });

export const deny = (id: string, face: Seen) =>
  json<unknown>(`${person(id)}/denials`, body("POST", { request_id: face.request_id, face: face.face } satisfies Seen));

export const photoPath = (id: string, face: string) => `${person(id)}/faces/${encodeURIComponent(face)}/photo`;

export const samples = async () => (await json<Schemas["SamplePhotographs"]>("samples")).samples;

export async function sampleFile(sample: Sample): Promise<File> {
  const found = await ask(`samples/${encodeURIComponent(sample.file)}`);
  return new File([await found.blob()], sample.file, { type: "image/jpeg" });
}

/** What the gallery's own examination found; nothing where this Muster has none. */
export async function health(): Promise<Health | undefined> {
  try {
    return await json<Health>("v1/gallery/health");
  } catch (error) {
    if (error instanceof Refusal && error.status === 404) return undefined;
    throw error;
  }
}
