import { useEffect, useState } from "preact/hooks";

/** A value that outlives the view that shows it. */
export class Store<T> {
  #value: T;
  readonly #listeners = new Set<() => void>();

  constructor(value: T) {
    this.#value = value;
  }

  get value(): T {
    return this.#value;
  }

  change(change: (value: T) => T): void {
    this.#value = change(this.#value);
    for (const listener of this.#listeners) listener();
  }

  /** The value, in a component that is drawn anew when it changes. */
  use(): T {
    const [, draw] = useState(0);
    useEffect(() => {
      const listener = () => draw((n) => n + 1);
      this.#listeners.add(listener);
      // It may have changed between the drawing and this.
      listener();
      return () => void this.#listeners.delete(listener);
    }, []);
    return this.#value;
  }
}
