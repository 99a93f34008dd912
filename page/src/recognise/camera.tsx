import { useEffect, useRef, useState } from "preact/hooks";

import { Dialog } from "../dialog";

/** Takes photographs with the camera until it is closed. */
export function Camera(props: { take: (file: File) => void; close: () => void }) {
  const video = useRef<HTMLVideoElement>(null);
  const [ready, setReady] = useState(false);
  const [trouble, setTrouble] = useState("");
  useEffect(() => {
    let stream: MediaStream | undefined;
    let gone = false;
    const open = async () => {
      if (!navigator.mediaDevices) {
        setTrouble("A browser lends its camera only over https, or to this machine: choose a file instead.");
        return;
      }
      try {
        stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 } } });
      } catch (error) {
        const name = error instanceof DOMException ? error.name : "";
        setTrouble(
          name === "NotAllowedError"
            ? "The browser did not allow the camera: allow it for this page, or choose a file instead."
            : "No camera can be used: connect one, or choose a file instead.",
        );
        return;
      }
      if (gone || !video.current) {
        for (const track of stream.getTracks()) track.stop();
        return;
      }
      video.current.srcObject = stream;
    };
    void open();
    return () => {
      gone = true;
      for (const track of stream?.getTracks() ?? []) track.stop();
    };
  }, []);
  const shoot = () => {
    const from = video.current;
    if (!from) return;
    const canvas = document.createElement("canvas");
    canvas.width = from.videoWidth;
    canvas.height = from.videoHeight;
    canvas.getContext("2d")?.drawImage(from, 0, 0);
    canvas.toBlob(
      (blob) => {
        if (!blob) return setTrouble("The browser could not keep the picture: try again.");
        props.take(new File([blob], "camera.jpg", { type: "image/jpeg" }));
        props.close();
      },
      "image/jpeg",
      0.92,
    );
  };
  return (
    <Dialog title="Take a photograph" close={props.close} wide>
      {trouble ? (
        <p role="alert" class="trouble">
          {trouble}
        </p>
      ) : (
        <video ref={video} autoplay muted playsInline aria-label="What the camera sees" onLoadedData={() => setReady(true)} />
      )}
      <div class="actions">
        {!trouble && (
          <button type="button" class="primary" disabled={!ready} onClick={shoot}>
            Take it
          </button>
        )}
        <button type="button" onClick={props.close}>
          Close
        </button>
      </div>
    </Dialog>
  );
}
