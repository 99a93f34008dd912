import { useEffect, useRef, useState } from "preact/hooks";

import { ask, hasKey, photoPath, reason } from "../api";

/** The photograph that a face was enrolled from. */
export function Portrait(props: { person: string; face: string; alt: string }) {
  const path = photoPath(props.person, props.face);
  const element = useRef<HTMLImageElement>(null);
  const [kept, setKept] = useState<string | undefined>();
  const [trouble, setTrouble] = useState("");
  // An image is asked for without a key; with one it is fetched once it comes into sight.
  const keyed = hasKey();
  useEffect(() => {
    const image = element.current;
    if (!keyed || !image) return;
    let url: string | undefined;
    const stop = new AbortController();
    const watcher = new IntersectionObserver(async ([seen]) => {
      if (!seen?.isIntersecting) return;
      watcher.disconnect();
      try {
        const found = await ask(path, { signal: stop.signal });
        url = URL.createObjectURL(await found.blob());
        if (stop.signal.aborted) URL.revokeObjectURL(url);
        else setKept(url);
      } catch (error) {
        if (!stop.signal.aborted) setTrouble(reason(error));
      }
    });
    watcher.observe(image);
    return () => {
      watcher.disconnect();
      stop.abort();
      if (url) URL.revokeObjectURL(url);
    };
  }, [path, keyed]);
  if (trouble) {
    return (
      <span class="portrait none" role="img" aria-label={`${props.alt}: ${trouble}`} title={trouble}>
        ?
      </span>
    );
  }
  return (
    <img
      ref={element}
      class="portrait"
      loading="lazy"
      alt={props.alt}
      onError={() => setTrouble("this photograph can not be shown")}
      {...(keyed ? (kept ? { src: kept } : {}) : { src: path })}
    />
  );
}
