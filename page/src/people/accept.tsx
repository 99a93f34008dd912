/** Whether a face is to be enrolled that does not meet the limits. */
export function AcceptUnfit(props: { accepted: boolean; set: (accepted: boolean) => void }) {
  return (
    <label class="accept">
      <input type="checkbox" checked={props.accepted} onChange={(event) => props.set(event.currentTarget.checked)} />
      Enrol although the photograph is poor
    </label>
  );
}
