import { useEffect, useState } from "preact/hooks";

import { type Person, merge, people, reason } from "../api";
import { Dialog } from "../dialog";
import { count } from "../words";
import { Portrait } from "./portrait";

/** Finds the other entry of the same person, and takes it over. */
export function Merging(props: { into: Person; close: () => void; merged: (whole: Person) => void }) {
  const [wanted, setWanted] = useState("");
  const [list, setList] = useState<Person[] | undefined>();
  const [chosen, setChosen] = useState<Person | undefined>();
  const [busy, setBusy] = useState(false);
  const [trouble, setTrouble] = useState("");
  useEffect(() => {
    let stale = false;
    const later = setTimeout(() => {
      people({ name: wanted.trim(), limit: 20 }).then(
        (page) => !stale && setList(page.people.filter((one) => one.id !== props.into.id)),
        (error) => !stale && setTrouble(reason(error)),
      );
    }, 150);
    return () => {
      stale = true;
      clearTimeout(later);
    };
  }, [wanted]);
  const { name } = props.into;
  return (
    <Dialog title={`Who is ${name} as well?`} close={props.close}>
      <form
        onSubmit={async (event) => {
          event.preventDefault();
          if (!chosen) return;
          setBusy(true);
          try {
            props.merged(await merge(props.into.id, chosen.id));
          } catch (error) {
            setTrouble(reason(error));
            setBusy(false);
          }
        }}
      >
        <label class="field">
          Search by name
          <input type="search" value={wanted} onInput={(event) => setWanted(event.currentTarget.value)} />
        </label>
        <fieldset class="choice">
          <legend class="unseen">The other entry</legend>
          {list?.map((one) => (
            <label>
              <input type="radio" name="other" checked={chosen?.id === one.id} onChange={() => setChosen(one)} />
              {one.faces[0] && <Portrait person={one.id} face={one.faces[0].id} alt="" />}
              <span>{one.name}</span>
              <span class="facts">{count(one.faces.length, "photograph")}</span>
            </label>
          ))}
          {list?.length === 0 && <p class="hint">There is nobody else{wanted && " of that name"}.</p>}
        </fieldset>
        <p class="hint">
          {chosen
            ? `The photographs of ${chosen.name} become ${name}'s, and the entry ${chosen.name} is gone.`
            : `The other's photographs become ${name}'s, and the other entry is gone.`}
        </p>
        {trouble && (
          <p role="alert" class="trouble">
            {trouble}
          </p>
        )}
        <div class="actions">
          <button type="submit" class="primary" disabled={!chosen || busy}>
            {busy ? "Merging…" : "Merge"}
          </button>
          <button type="button" onClick={props.close}>
            Cancel
          </button>
        </div>
      </form>
    </Dialog>
  );
}
