import { useEffect, useId, useRef, useState } from "preact/hooks";

import { type Face, type PersonRef, deny, enrolAs, people, reason } from "../api";
import { AcceptUnfit } from "../people/accept";
import { type Shot, again } from "./shots";

/** What can be done about the answer for one face. */
export function Actions({ shot, face, n }: { shot: Shot; face: Face; n: number }) {
  const [open, setOpen] = useState(false);
  const [busy, setBusy] = useState(false);
  const [trouble, setTrouble] = useState("");
  const [denied, setDenied] = useState("");
  const request_id = shot.result?.request_id ?? "";
  // A new answer has new questions.
  useEffect(() => {
    setOpen(false);
    setTrouble("");
  }, [request_id]);
  const seen = { request_id, face: n };
  const act = async (what: () => Promise<void>) => {
    setBusy(true);
    setTrouble("");
    try {
      await what();
      again(shot.id);
    } catch (error) {
      setTrouble(reason(error));
    } finally {
      setBusy(false);
    }
  };
  const refuse = (person: PersonRef) =>
    act(async () => {
      await deny(person.id, seen);
      setDenied(person.name);
    });
  const name = (given: string, accepted: boolean) =>
    act(async () => {
      await enrolAs(given, seen, accepted);
      setDenied("");
    });
  const doubted = face.person ? [face.person] : face.decision === "ambiguous" ? face.candidates.slice(0, 2).map((c) => c.person) : [];
  const waiting = shot.state === "waiting" || shot.state === "sending";
  return (
    <div class="todo">
      {denied && (
        <p role="status" class="done">
          Noted: this face is not taken for {denied} again. Who is it?
        </p>
      )}
      {open ? (
        <NameForm busy={busy || waiting} submit={name} close={() => setOpen(false)} />
      ) : (
        <div class="actions small">
          {face.decision !== "match" && (
            <button type="button" disabled={busy || waiting} onClick={() => setOpen(true)}>
              Enrol this face
            </button>
          )}
          {face.person && (
            <a class="button quiet" href={`#/people/${face.person.id}`}>
              Show person
            </a>
          )}
          {doubted.map((person) => (
            <button type="button" class="quiet" disabled={busy || waiting} onClick={() => refuse(person)}>
              Not {person.name}
            </button>
          ))}
        </div>
      )}
      {trouble && (
        <p role="alert" class="trouble">
          {trouble}
        </p>
      )}
    </div>
  );
}

function NameForm(props: { busy: boolean; submit: (name: string, accepted: boolean) => void; close: () => void }) {
  const [name, setName] = useState("");
  const [known, setKnown] = useState<string[]>([]);
  const [accepted, setAccepted] = useState(false);
  const list = useId();
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => input.current?.focus(), []);
  useEffect(() => {
    if (!name.trim()) return setKnown([]);
    let stale = false;
    const later = setTimeout(() => {
      // Suggestions only: without them the name is typed in full.
      people({ name: name.trim(), limit: 8 }).then(
        (page) => !stale && setKnown(page.people.map((person) => person.name)),
        () => {},
      );
    }, 150);
    return () => {
      stale = true;
      clearTimeout(later);
    };
  }, [name]);
  return (
    <form
      class="naming"
      onSubmit={(event) => {
        event.preventDefault();
        if (name.trim()) props.submit(name.trim(), accepted);
      }}
      onKeyDown={(event) => event.key === "Escape" && props.close()}
    >
      <label class="field">
        Name
        <input
          value={name}
          list={list}
          required
          maxLength={200}
          autocomplete="off"
          ref={input}
          onInput={(event) => setName(event.currentTarget.value)}
        />
      </label>
      <datalist id={list}>
        {known.map((one) => (
          <option value={one} />
        ))}
      </datalist>
      <AcceptUnfit accepted={accepted} set={setAccepted} />
      <div class="actions small">
        <button type="submit" class="primary" disabled={props.busy}>
          {props.busy ? "Enrolling…" : known.includes(name.trim()) ? "Add to this person" : "Enrol"}
        </button>
        <button type="button" class="quiet" onClick={props.close}>
          Cancel
        </button>
      </div>
    </form>
  );
}
