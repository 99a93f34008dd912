import { useState } from "preact/hooks";

import type { Face, Recognition } from "../api";
import { sentence } from "../api";
import { count, milliseconds, similarity } from "../words";
import { Actions } from "./enrolment";
import { type Shot, again } from "./shots";

/** One photograph with its faces marked, and beside it what was decided of each. */
export function Photo({ shot }: { shot: Shot }) {
  const [lit, setLit] = useState<number | undefined>();
  const [broken, setBroken] = useState(false);
  const result = shot.result;
  const looking = shot.state === "waiting" || shot.state === "sending";
  const faces = result?.faces ?? [];
  return (
    <div class="photo">
      <figure>
        <div class={looking ? "picture looking" : "picture"}>
          {broken ? (
            <p class="hint">The browser can not show this format; Muster looks at it all the same.</p>
          ) : (
            <img src={shot.url} alt={shot.file.name} onError={() => setBroken(true)} />
          )}
          {result &&
            !broken &&
            faces.map((face, n) => (
              <button
                type="button"
                class={`box ${face.decision}${lit === n ? " lit" : ""}`}
                style={place(face, result)}
                aria-label={`Face ${n + 1}: ${title(face)}`}
                onMouseEnter={() => setLit(n)}
                onMouseLeave={() => setLit(undefined)}
                onFocus={() => setLit(n)}
                onBlur={() => setLit(undefined)}
                onClick={() => document.getElementById(`face-${n}`)?.focus()}
              >
                <span>{face.person?.name ?? n + 1}</span>
              </button>
            ))}
        </div>
        <figcaption>
          <span>{shot.file.name}</span>
          {result && (
            <span>
              {result.image.width} × {result.image.height}, answered in {milliseconds(result.timing_ms["total"] ?? 0)}
            </span>
          )}
        </figcaption>
      </figure>
      <section class="answer" aria-label="Faces" aria-busy={looking}>
        <p role="status" class="hint">
          {looking
            ? shot.state === "waiting"
              ? "Waits for its turn."
              : result
                ? "Looking again…"
                : "Looking for faces… The first photograph after a pause also waits for a worker to start."
            : result && shot.state === "done"
              ? `${count(faces.length, "face")} found`
              : ""}
        </p>
        {shot.state === "failed" && (
          <div role="alert" class="trouble">
            <p>{shot.error}</p>
            <button type="button" onClick={() => again(shot.id)}>
              Try again
            </button>
          </div>
        )}
        <ol class="faces">
          {result &&
            faces.map((face, n) => (
              <li
                key={n}
                id={`face-${n}`}
                tabIndex={-1}
                class={lit === n ? "lit" : ""}
                onMouseEnter={() => setLit(n)}
                onMouseLeave={() => setLit(undefined)}
              >
                <div class="crop" aria-hidden="true">
                  {!broken && <img src={shot.url} alt="" style={cut(face, result)} />}
                </div>
                <div class="said">
                  <h3 class={face.decision}>
                    <span class="number">{n + 1}</span>
                    {title(face)}
                  </h3>
                  <Likeness face={face} />
                  {face.reasons.map((why) => (
                    <p class="why">{sentence(why)}</p>
                  ))}
                  <Actions shot={shot} face={face} n={n} />
                </div>
              </li>
            ))}
        </ol>
        {faces.some((face) => face.cutoff != null && face.candidates.length > 0) && (
          <p class="hint small-print">The upright mark is the similarity that is needed.</p>
        )}
      </section>
    </div>
  );
}

function title(face: Face): string {
  if (face.decision === "match" && face.person) return face.person.name;
  if (face.decision === "ambiguous") {
    const [first, second] = face.candidates;
    return first && second ? `${first.person.name} or ${second.person.name}` : "Not sure who";
  }
  return "Unknown";
}

/** How alike the nearest people are, and how alike they would have to be. */
function Likeness({ face }: { face: Face }) {
  const shown = face.candidates.slice(0, face.decision === "ambiguous" ? 2 : 1);
  return (
    <>
      {shown.map((candidate) => {
        const value = candidate.similarity;
        const needed = face.cutoff ?? null;
        const said = `Similarity to ${candidate.person.name} ${similarity(value)}${
          needed === null ? "" : `, ${similarity(needed)} is needed`
        }`;
        return (
          <div class="likeness" role="img" aria-label={said} title={said}>
            <span class="name">{face.decision === "match" ? "similarity" : candidate.person.name}</span>
            <span class="meter">
              <span class={face.decision} style={{ width: `${Math.max(0, Math.min(1, value)) * 100}%` }} />
              {needed !== null && <i style={{ left: `${needed * 100}%` }} />}
            </span>
            <span class="value">{similarity(value)}</span>
          </div>
        );
      })}
    </>
  );
}

const percent = (share: number) => `${share * 100}%`;

function place(face: Face, { image }: Recognition) {
  const { x, y, width, height } = face.box;
  return {
    left: percent(x / image.width),
    top: percent(y / image.height),
    width: percent(width / image.width),
    height: percent(height / image.height),
  };
}

/** Scales and shifts the photograph so that a square around the face fills its frame. */
function cut(face: Face, { image }: Recognition) {
  const { x, y, width, height } = face.box;
  const side = Math.max(width, height) * 1.3;
  const left = x + width / 2 - side / 2;
  const top = y + height / 2 - side / 2;
  return {
    width: percent(image.width / side),
    left: percent(-left / side),
    top: percent(-top / side),
  };
}
