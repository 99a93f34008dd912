import type { Health } from "../api";
import { count, similarity } from "../words";

/** How many of a person's faces or entries are doubtful. */
export function worriesOf(health: Health, id: string): number {
  return (
    health.mislabelled.filter((one) => one.person.id === id).length +
    health.weak.filter((one) => one.person.id === id).length +
    health.duplicates.filter((one) => one.first.id === id || one.second.id === id).length
  );
}

/** What is doubtful about one face. */
export function doubts(health: Health | undefined, face: string): string[] {
  if (!health) return [];
  return [
    ...health.mislabelled
      .filter((one) => one.face === face)
      .map(
        (one) =>
          `looks like ${one.looks_like.name} (${similarity(one.to_other)}) rather than ${one.person.name} (${similarity(one.to_own)})`,
      ),
    ...health.weak.filter((one) => one.face === face).flatMap((one) => one.reasons),
  ];
}

const link = (person: { id: string; name: string }) => <a href={`#/people/${person.id}`}>{person.name}</a>;

/** What the examination of the gallery found; nothing where it found nothing. */
export function Worries({ health }: { health: Health }) {
  const { mislabelled, duplicates, weak } = health;
  const all = mislabelled.length + duplicates.length + weak.length;
  if (all === 0) return null;
  return (
    <details class="worries" open={all <= 3}>
      <summary>{count(all, "enrolment is", "enrolments are")} worth a look</summary>
      <ul>
        {mislabelled.map((one) => (
          <li>
            A photograph of {link(one.person)} looks like {link(one.looks_like)}: {similarity(one.to_other)} against{" "}
            {similarity(one.to_own)} to the others. Delete it, or enrol it under the right name.
          </li>
        ))}
        {duplicates.map((one) => (
          <li>
            {link(one.first)} and {link(one.second)} seem to be one person ({similarity(one.nearest)}). Merge them if they
            are.
          </li>
        ))}
        {weak.map((one) => (
          <li>
            A photograph of {link(one.person)} {one.unfit.length ? "does not meet the limits" : "is of little use"}:{" "}
            {one.reasons.join("; ")}. A better one helps.
          </li>
        ))}
      </ul>
    </details>
  );
}
