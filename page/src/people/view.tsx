import { useCallback, useEffect, useRef, useState } from "preact/hooks";

import { type Health, type Person, enrol, health, people, reason } from "../api";
import { Dialog } from "../dialog";
import { count, day } from "../words";
import { AcceptUnfit } from "./accept";
import { Detail } from "./detail";
import { Worries, worriesOf } from "./health";
import { Portrait } from "./portrait";

/** People on a page of the list. */
const PAGE = 50;

export function People({ id }: { id: string | undefined }) {
  const [found, setFound] = useState<Health | undefined>();
  const examine = useCallback(() => {
    // The list works without it, and says so itself where Muster does not answer.
    health().then(setFound, () => setFound(undefined));
  }, []);
  useEffect(() => {
    if (!id || !found) examine();
  }, [id]);
  return id ? <Detail key={id} id={id} health={found} changed={examine} /> : <List health={found} changed={examine} />;
}

function List(props: { health: Health | undefined; changed: () => void }) {
  const [wanted, setWanted] = useState("");
  const [list, setList] = useState<Person[] | undefined>();
  const [next, setNext] = useState<string | null>(null);
  const [total, setTotal] = useState(0);
  const [trouble, setTrouble] = useState("");
  const [adding, setAdding] = useState(false);
  const search = useRef(0);

  const load = async (after?: string) => {
    const mine = ++search.current;
    try {
      const page = await people({ name: wanted.trim(), limit: PAGE, ...(after ? { after } : {}) });
      if (mine !== search.current) return;
      setList((before) => [...(after ? (before ?? []) : []), ...page.people]);
      setNext(page.next ?? null);
      setTotal(page.total);
      setTrouble("");
    } catch (error) {
      if (mine === search.current) setTrouble(reason(error));
    }
  };
  useEffect(() => {
    const later = setTimeout(load, wanted ? 150 : 0);
    return () => clearTimeout(later);
  }, [wanted]);

  return (
    <div class="people">
      <div class="title">
        <h1>People</h1>
        <div class="actions">
          <label class="search">
            <span class="unseen">Search by name</span>
            <input
              type="search"
              placeholder="Search by name"
              value={wanted}
              onInput={(event) => setWanted(event.currentTarget.value)}
            />
          </label>
          <button type="button" class="primary" onClick={() => setAdding(true)}>
            Add a person
          </button>
        </div>
      </div>
      {trouble && (
        <div role="alert" class="trouble">
          <p>{trouble}</p>
          <button type="button" onClick={() => load()}>
            Try again
          </button>
        </div>
      )}
      {props.health && <Worries health={props.health} />}
      <p role="status" class="hint">
        {list === undefined
          ? trouble
            ? ""
            : "Looking who is enrolled…"
          : wanted
            ? `${list.length}${next ? " or more" : ""} of ${count(total, "person", "people")} with “${wanted.trim()}” in the name`
            : total > 0
              ? `${count(total, "person is", "people are")} enrolled`
              : ""}
      </p>
      {list && list.length > 0 && (
        <ul class="roll">
          {list.map((person) => (
            <Row key={person.id} person={person} worries={props.health ? worriesOf(props.health, person.id) : 0} />
          ))}
        </ul>
      )}
      {list?.length === 0 && !wanted && (
        <div class="empty plain">
          <p class="lead">Nobody is enrolled yet, so every face is a stranger's.</p>
          <p class="hint">Add a person with a photograph or two, or enrol an unknown face from an answer.</p>
        </div>
      )}
      {next && (
        <button type="button" class="more" onClick={() => load(list?.at(-1)?.id)}>
          Show more
        </button>
      )}
      {adding && (
        <Adding
          close={() => setAdding(false)}
          added={(person) => {
            setAdding(false);
            props.changed();
            location.hash = `#/people/${person.id}`;
          }}
        />
      )}
    </div>
  );
}

function Row({ person, worries }: { person: Person; worries: number }) {
  const [face] = person.faces;
  return (
    <li>
      <a href={`#/people/${person.id}`}>
        {face ? <Portrait person={person.id} face={face.id} alt="" /> : <span class="portrait none">?</span>}
        <span class="name">{person.name}</span>
        <span class="facts">
          {count(person.faces.length, "photograph")}
          {person.denials > 0 && `, ${count(person.denials, "correction")}`}
        </span>
        <span class="since">since {day(person.enrolled_at_ms)}</span>
        {worries > 0 && <span class="flag">{count(worries, "doubt")}</span>}
      </a>
    </li>
  );
}

function Adding(props: { close: () => void; added: (person: Person) => void }) {
  const [name, setName] = useState("");
  const [photos, setPhotos] = useState<File[]>([]);
  const [accepted, setAccepted] = useState(false);
  const [busy, setBusy] = useState(false);
  const [trouble, setTrouble] = useState("");
  return (
    <Dialog title="Add a person" close={props.close}>
      <form
        onSubmit={async (event) => {
          event.preventDefault();
          setBusy(true);
          try {
            props.added(await enrol(name.trim(), photos, accepted));
          } catch (error) {
            setTrouble(reason(error));
            setBusy(false);
          }
        }}
      >
        <label class="field">
          Name
          <input required maxLength={200} autocomplete="off" value={name} onInput={(e) => setName(e.currentTarget.value)} />
        </label>
        <label class="field">
          Photographs that show this person alone
          <input
            type="file"
            accept="image/*"
            multiple
            required
            onChange={(event) => setPhotos([...(event.currentTarget.files ?? [])])}
          />
        </label>
        <p class="hint">
          Two or three, taken on different days, are better than one. They are kept until the person is deleted.
        </p>
        <AcceptUnfit accepted={accepted} set={setAccepted} />
        {trouble && (
          <p role="alert" class="trouble">
            {trouble}
          </p>
        )}
        <div class="actions">
          <button type="submit" class="primary" disabled={busy}>
            {busy ? "Enrolling…" : "Enrol"}
          </button>
          <button type="button" onClick={props.close}>
            Cancel
          </button>
        </div>
      </form>
    </Dialog>
  );
}
