import { useEffect, useRef, useState } from "preact/hooks";

import { type Health, type Person, type Receipt, addFaces, reason, remove, removeFace, rename, show } from "../api";
import { Dialog } from "../dialog";
import { count, day } from "../words";
import { AcceptUnfit } from "./accept";
import { doubts } from "./health";
import { Merging } from "./merging";
import { Portrait } from "./portrait";
import { ReceiptView } from "./receipt";

type Question = "delete" | "merge" | { face: string };

export function Detail(props: { id: string; health: Health | undefined; changed: () => void }) {
  const [person, setPerson] = useState<Person | undefined>();
  const [trouble, setTrouble] = useState("");
  const [busy, setBusy] = useState(false);
  const [accepted, setAccepted] = useState(false);
  const [question, setQuestion] = useState<Question | undefined>();
  const [receipt, setReceipt] = useState<{ what: string; receipt: Receipt; gone: boolean } | undefined>();
  const input = useRef<HTMLInputElement>(null);

  const act = async (what: () => Promise<void>) => {
    setBusy(true);
    setTrouble("");
    try {
      await what();
      props.changed();
    } catch (error) {
      setTrouble(reason(error));
    } finally {
      setBusy(false);
    }
  };
  useEffect(() => {
    show(props.id).then(setPerson, (error) => setTrouble(reason(error)));
  }, [props.id]);

  const problem = trouble && (
    <p role="alert" class="trouble">
      {trouble}
    </p>
  );
  const back = (
    <a class="back" href="#/people">
      All people
    </a>
  );
  if (receipt?.gone) {
    return (
      <div class="person">
        {back}
        <h1>{receipt.what}</h1>
        <ReceiptView receipt={receipt.receipt} />
      </div>
    );
  }
  if (!person) {
    return (
      <div class="person">
        {back}
        {problem || (
          <p role="status" class="hint">
            Looking this person up…
          </p>
        )}
      </div>
    );
  }
  const add = (files: File[]) => files.length > 0 && act(async () => setPerson(await addFaces(person.id, files, accepted)));
  return (
    <div
      class="person"
      onDragOver={(event) => event.preventDefault()}
      onDrop={(event) => {
        event.preventDefault();
        void add([...(event.dataTransfer?.files ?? [])]);
      }}
    >
      {back}
      <div class="title">
        <Name person={person} busy={busy} save={(name) => act(async () => setPerson(await rename(person.id, name)))} />
        <div class="actions">
          <button type="button" class="primary" disabled={busy} onClick={() => input.current?.click()}>
            {busy ? "One moment…" : "Add photographs"}
          </button>
          <input
            ref={input}
            type="file"
            accept="image/*"
            multiple
            class="unseen"
            tabIndex={-1}
            aria-label={`Photographs of ${person.name}`}
            onChange={(event) => {
              const files = [...(event.currentTarget.files ?? [])];
              event.currentTarget.value = "";
              void add(files);
            }}
          />
          <button type="button" disabled={busy} onClick={() => setQuestion("merge")}>
            Merge
          </button>
          <button type="button" class="danger" disabled={busy} onClick={() => setQuestion("delete")}>
            Delete
          </button>
        </div>
      </div>
      <p class="hint">
        Enrolled {day(person.enrolled_at_ms)}, {count(person.faces.length, "photograph")}
        {person.denials > 0 && `, ${count(person.denials, "face")} said not to be ${person.name}`}
        {person.external_id && `, external id ${person.external_id}`}
      </p>
      <AcceptUnfit accepted={accepted} set={setAccepted} />
      {problem}
      <ul class="faces-kept">
        {person.faces.map((face) => {
          const wrong = doubts(props.health, face.id);
          return (
            <li key={face.id} class={wrong.length ? "doubtful" : ""}>
              <Portrait person={person.id} face={face.id} alt={`${person.name}, ${face.file}`} />
              <div>
                <span class="file" title={face.file}>
                  {face.file}
                </span>
                <button
                  type="button"
                  class="quiet"
                  disabled={busy}
                  aria-label={`Delete the photograph ${face.file}`}
                  onClick={() => setQuestion({ face: face.id })}
                >
                  Delete
                </button>
              </div>
              {face.unfit.length > 0 && <span class="flag">Poor photograph</span>}
              {wrong.map((one) => (
                <p class="why doubt">{one}</p>
              ))}
            </li>
          );
        })}
      </ul>
      {receipt && (
        <Dialog title={receipt.what} close={() => setReceipt(undefined)}>
          <ReceiptView receipt={receipt.receipt} />
          <div class="actions">
            <button type="button" class="primary" onClick={() => setReceipt(undefined)}>
              Close
            </button>
          </div>
        </Dialog>
      )}
      {question === "merge" && (
        <Merging
          into={person}
          close={() => setQuestion(undefined)}
          merged={(whole) => {
            setPerson(whole);
            setQuestion(undefined);
            props.changed();
          }}
        />
      )}
      {question === "delete" && (
        <Confirm
          title={`Delete ${person.name}?`}
          said={`The person, ${count(person.faces.length, "embedding")} and ${count(person.faces.length, "photograph")} are deleted for good. You get a receipt.`}
          close={() => setQuestion(undefined)}
          confirm={() =>
            act(async () => {
              setQuestion(undefined);
              const { receipt } = await remove(person.id);
              setReceipt({ what: `${person.name} is deleted`, receipt, gone: true });
            })
          }
        />
      )}
      {typeof question === "object" && (
        <Confirm
          title="Delete this photograph?"
          said={`Its embedding and the photograph are deleted for good; ${person.name} stays.`}
          close={() => setQuestion(undefined)}
          confirm={() =>
            act(async () => {
              const face = question.face;
              setQuestion(undefined);
              const { receipt } = await removeFace(person.id, face);
              setPerson(await show(person.id));
              setReceipt({ what: "The photograph is deleted", receipt, gone: false });
            })
          }
        />
      )}
    </div>
  );
}

function Name(props: { person: Person; busy: boolean; save: (name: string) => Promise<void> }) {
  const [name, setName] = useState<string | undefined>();
  const input = useRef<HTMLInputElement>(null);
  const editing = name !== undefined;
  useEffect(() => {
    if (editing) input.current?.select();
  }, [editing]);
  if (!editing) {
    return (
      <div class="named">
        <h1>{props.person.name}</h1>
        <button type="button" class="quiet" onClick={() => setName(props.person.name)}>
          Rename
        </button>
      </div>
    );
  }
  return (
    <form
      class="named"
      onSubmit={async (event) => {
        event.preventDefault();
        if (name.trim() && name.trim() !== props.person.name) await props.save(name.trim());
        setName(undefined);
      }}
      onKeyDown={(event) => event.key === "Escape" && setName(undefined)}
    >
      <input
        ref={input}
        aria-label="Name"
        required
        maxLength={200}
        autocomplete="off"
        value={name}
        onInput={(event) => setName(event.currentTarget.value)}
      />
      <button type="submit" class="primary" disabled={props.busy}>
        Save
      </button>
      <button type="button" class="quiet" onClick={() => setName(undefined)}>
        Cancel
      </button>
    </form>
  );
}

function Confirm(props: { title: string; said: string; close: () => void; confirm: () => Promise<void> }) {
  return (
    <Dialog title={props.title} close={props.close}>
      <p>{props.said}</p>
      <div class="actions">
        <button type="button" class="danger" onClick={props.confirm}>
          Delete
        </button>
        <button type="button" onClick={props.close}>
          Keep
        </button>
      </div>
    </Dialog>
  );
}
