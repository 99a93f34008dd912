import type { Receipt } from "../api";
import { duration, moment } from "../words";

/** What a deletion answered, to be read and to be filed. */
export function ReceiptView({ receipt }: { receipt: Receipt }) {
  const save = () => {
    const url = URL.createObjectURL(new Blob([JSON.stringify(receipt, null, 2)], { type: "application/json" }));
    const link = document.createElement("a");
    link.href = url;
    link.download = `deletion-${receipt.id}.json`;
    link.click();
    URL.revokeObjectURL(url);
  };
  return (
    <section class="receipt" aria-label="Receipt">
      <dl>
        <dt>Deleted</dt>
        <dd>{moment(receipt.deleted_at_ms)}</dd>
        <dt>Embeddings</dt>
        <dd>{receipt.embeddings}</dd>
        <dt>Photographs</dt>
        <dd>
          {receipt.photographs}
          {receipt.photographs_pending > 0 && `, ${receipt.photographs_pending} to follow within two hours`}
        </dd>
        {receipt.results != null && (
          <>
            <dt>Results</dt>
            <dd>{receipt.results} no longer name the person</dd>
          </>
        )}
        <dt>Person</dt>
        <dd class="code">{receipt.person_id}</dd>
        <dt>Gallery</dt>
        <dd>gone from version {receipt.gallery_version.toLocaleString("en-GB")} on</dd>
        <dt>Receipt</dt>
        <dd class="code">{receipt.id}</dd>
      </dl>
      <p class="hint">
        Workers on other machines delete their copies within {duration(receipt.other_machines_within_s)}. Photographs that
        were sent to be recognised are deleted{" "}
        {receipt.uploads_kept_s == null
          ? "when the expiry rule of their bucket says so"
          : `${duration(receipt.uploads_kept_s)} after they came`}
        , whoever they show.
      </p>
      <button type="button" onClick={save}>
        Save the receipt
      </button>
    </section>
  );
}
