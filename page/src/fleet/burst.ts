// Many photographs at once, to watch the fleet grow and go.

import { type Outcome, reason, recogniseAll, sampleFile, samples, sentence } from "../api";
import { Store } from "../store";

export interface Burst {
  wanted: number;
  answered: number;
  failed: number;
  running: boolean;
  /** What the first failure said. */
  trouble: string;
}

/** A browser opens six connections to a server; one listens, and one is for everything else. */
const AT_ONCE = 4;
/** Photographs in one request; few, so that progress is seen, and two at least, which is several. */
const TOGETHER = 20;
/** Pixels of a side of what is sent. */
const SIDE = 512;

export const burst = new Store<Burst | undefined>(undefined);
let stopping: AbortController | undefined;

export function stop(): void {
  stopping?.abort();
}

/** Sends so many variations of the photographs; of the samples where none are given. */
export async function send(wanted: number, photos: File[]): Promise<void> {
  if (burst.value?.running) return;
  const { signal } = (stopping = new AbortController());
  burst.change(() => ({ wanted, answered: 0, failed: 0, running: true, trouble: "" }));
  const change = (how: (before: Burst) => Partial<Burst>) =>
    burst.change((before) => before && { ...before, ...how(before) });
  try {
    const sources = await Promise.all((photos.length ? photos : await allSamples()).map((file) => createImageBitmap(file)));
    let next = 0;
    const sender = async () => {
      while (next < wanted && !signal.aborted) {
        const first = next;
        next = Math.min(first + TOGETHER, wanted);
        const made = Array.from({ length: next - first }, (_, n) => {
          const source = sources[(first + n) % sources.length];
          if (!source) throw new Error("There is no photograph to send: choose one.");
          return varied(source, first + n);
        });
        try {
          const outcomes = await recogniseAll(await Promise.all(made), signal);
          for (const outcome of outcomes) change(counted(outcome));
        } catch (error) {
          if (signal.aborted) return;
          change(({ failed, trouble }) => ({ failed: failed + made.length, trouble: trouble || reason(error) }));
        }
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, sender));
    for (const source of sources) source.close();
  } catch (error) {
    change(() => ({ trouble: reason(error) }));
  }
  change(() => ({ running: false }));
}

function counted(outcome: Outcome): (before: Burst) => Partial<Burst> {
  // A variation that cuts the face off is answered too.
  if (!("problem" in outcome) || outcome.problem.code === "face.none") {
    return ({ answered }) => ({ answered: answered + 1 });
  }
  const { detail } = outcome.problem;
  return ({ failed, trouble }) => ({ failed: failed + 1, trouble: trouble || sentence(detail) });
}

async function allSamples(): Promise<File[]> {
  const found = await samples();
  if (!found.length) {
    throw new Error("There are no sample photographs on this server: choose some of your own, or install them with muster models install.");
  }
  return Promise.all(found.map(sampleFile));
}

/** A square of the photograph, each number's a little different, as a JPEG. */
function varied(source: ImageBitmap, n: number): Promise<Blob> {
  const canvas = document.createElement("canvas");
  canvas.width = SIDE;
  canvas.height = SIDE;
  const context = canvas.getContext("2d");
  if (!context) throw new Error("The browser can not draw pictures: allow canvases for this page.");
  const side = Math.min(source.width, source.height);
  const inset = side * 0.1 * ((n * 0.618) % 1);
  if (n % 2) {
    context.translate(SIDE, 0);
    context.scale(-1, 1);
  }
  context.filter = `brightness(${0.85 + 0.3 * ((n * 0.755) % 1)})`;
  // Of a portrait the square begins near the top, where the face is.
  const left = (source.width - side) / 2 + inset / 2;
  const top = (source.height - side) / 8 + inset / 2;
  context.drawImage(source, left, top, side - inset, side - inset, 0, 0, SIDE, SIDE);
  return new Promise((resolve, reject) => {
    const made = (blob: Blob | null) => (blob ? resolve(blob) : reject(new Error("The browser could not make a picture.")));
    canvas.toBlob(made, "image/jpeg", 0.85);
  });
}
