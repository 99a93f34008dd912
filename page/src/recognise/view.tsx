import { useEffect, useRef, useState } from "preact/hooks";

import { type Sample, reason, sampleFile, samples } from "../api";
import { count } from "../words";
import { Camera } from "./camera";
import { Photo } from "./photo";
import { type Shots, add, choose, clear, shots, summary } from "./shots";

/** Whether Muster may be able to read it; a browser does not know every format. */
const isPhotograph = (file: File) => file.type === "" || file.type.startsWith("image/");

export function Recognise() {
  const { list, chosen } = shots.use();
  const shot = list.find((one) => one.id === chosen) ?? list[0];
  const [over, setOver] = useState(false);
  const [trouble, setTrouble] = useState("");
  const take = (files: Iterable<File> | null | undefined) => {
    const given = [...(files ?? [])];
    const others = given.filter((file) => !isPhotograph(file)).map((file) => file.name);
    const verb = others.length > 1 ? "are no photographs and are" : "is no photograph and is";
    setTrouble(others.length ? `${others.join(", ")} ${verb} left out.` : "");
    add(given.filter(isPhotograph));
  };
  useEffect(() => {
    const paste = (event: ClipboardEvent) => {
      // Text may be pasted into a field.
      const files = [...(event.clipboardData?.files ?? [])].filter(isPhotograph);
      if (files.length) take(files);
    };
    document.addEventListener("paste", paste);
    return () => document.removeEventListener("paste", paste);
  }, []);
  return (
    <div
      class={over ? "recognise over" : "recognise"}
      onDragOver={(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={(event) => {
        if (!event.currentTarget.contains(event.relatedTarget as Node | null)) setOver(false);
      }}
      onDrop={(event) => {
        event.preventDefault();
        setOver(false);
        take(event.dataTransfer?.files);
      }}
    >
      <div class="title">
        <h1>Who is in the photograph?</h1>
        {shot && <Sources take={take} />}
      </div>
      {trouble && (
        <p role="alert" class="trouble note">
          {trouble}
        </p>
      )}
      {shot ? (
        <>
          {list.length > 1 && <Strip list={list} chosen={shot.id} />}
          <Photo key={shot.id} shot={shot} />
        </>
      ) : (
        <Empty take={take} />
      )}
    </div>
  );
}

function Sources(props: { take: (files: Iterable<File> | null) => void }) {
  const input = useRef<HTMLInputElement>(null);
  const [camera, setCamera] = useState(false);
  return (
    <div class="actions">
      <button type="button" class="primary" onClick={() => input.current?.click()}>
        Choose photographs
      </button>
      <input
        ref={input}
        type="file"
        accept="image/*"
        multiple
        class="unseen"
        tabIndex={-1}
        aria-label="Photographs"
        onChange={(event) => {
          props.take(event.currentTarget.files);
          event.currentTarget.value = "";
        }}
      />
      <button type="button" onClick={() => setCamera(true)}>
        Use the camera
      </button>
      {shots.value.list.length > 0 && (
        <button type="button" class="quiet" onClick={clear}>
          Clear
        </button>
      )}
      {camera && <Camera take={(file) => props.take([file])} close={() => setCamera(false)} />}
    </div>
  );
}

function Empty(props: { take: (files: Iterable<File> | null) => void }) {
  return (
    <div class="empty">
      <div class="drop">
        <svg viewBox="0 0 96 96" width="88" height="88" aria-hidden="true">
          <g fill="none" stroke="currentColor" stroke-width="3" stroke-linecap="round">
            <path d="M12 30V20a8 8 0 0 1 8-8h10M66 12h10a8 8 0 0 1 8 8v10M84 66v10a8 8 0 0 1-8 8H66M30 84H20a8 8 0 0 1-8-8V66" />
            <circle cx="48" cy="40" r="11" />
            <path d="M28 70c2-11 10-16 20-16s18 5 20 16" />
          </g>
        </svg>
        <p class="lead">Drop photographs here, or paste one.</p>
        <Sources take={props.take} />
        <p class="hint">Every face is looked up. What you send is deleted within the hour.</p>
      </div>
      <Samples />
    </div>
  );
}

function Samples() {
  const [found, setFound] = useState<Sample[]>([]);
  const [trouble, setTrouble] = useState("");
  useEffect(() => {
    samples().then(setFound, (error) => setTrouble(reason(error)));
  }, []);
  if (trouble) return <p class="trouble">{trouble}</p>;
  if (!found.length) return null;
  return (
    <section aria-labelledby="samples">
      <h2 id="samples">Or try a sample</h2>
      <ul class="samples">
        {found.map((sample) => (
          <li>
            <button
              type="button"
              onClick={() =>
                sampleFile(sample).then(
                  (file) => add([file]),
                  (error) => setTrouble(reason(error)),
                )
              }
            >
              <img src={`samples/${encodeURIComponent(sample.file)}`} alt={sample.person ?? "A group of people"} />
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}

function Strip({ list, chosen }: { list: Shots["list"]; chosen: number }) {
  const ended = list.filter((shot) => shot.state === "done" || shot.state === "failed").length;
  const failed = list.filter((shot) => shot.state === "failed").length;
  return (
    <section aria-label="Photographs" class="strip">
      <ul>
        {list.map((shot) => (
          <li>
            <button
              type="button"
              class={`frame ${shot.state}`}
              aria-pressed={shot.id === chosen}
              aria-label={`${shot.file.name}: ${summary(shot)}`}
              title={`${shot.file.name}: ${summary(shot)}`}
              onClick={() => choose(shot.id)}
            >
              <img src={shot.url} alt="" />
            </button>
          </li>
        ))}
      </ul>
      <p role="status" class="hint">
        {ended < list.length
          ? `${ended} of ${count(list.length, "photograph")} looked at`
          : `All ${count(list.length, "photograph")} looked at`}
        {failed > 0 && `, ${failed} without an answer`}
      </p>
      <progress max={list.length} value={ended} aria-label="Photographs looked at" hidden={ended === list.length} />
    </section>
  );
}
