import "@fontsource-variable/instrument-sans/wght.css";
import "./style.css";
import "./controls.css";
import "./recognise/style.css";
import "./people/style.css";
import "./fleet/style.css";

import { render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

import { giveKey, keepKey, takeToken, whenKeyIsNeeded } from "./api";
import { Dialog } from "./dialog";
import { Fleet } from "./fleet/view";
import { People } from "./people/view";
import { Recognise } from "./recognise/view";
import { THEMES, type Theme, applyTheme, setTheme, theme } from "./theme";

const VIEWS = [
  { path: "", name: "Recognise" },
  { path: "people", name: "People" },
  { path: "fleet", name: "Fleet" },
] as const;

/** What follows `#/`, in parts. */
function route(): string[] {
  return location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
}

function Page() {
  const [parts, setParts] = useState(route);
  const main = useRef<HTMLElement>(null);
  useEffect(() => {
    const moved = () => {
      takeToken();
      setParts(route());
      main.current?.focus({ preventScroll: true });
      scrollTo(0, 0);
    };
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  const [here = "", detail] = parts;
  const view = VIEWS.find((one) => one.path === here) ?? VIEWS[0];
  useEffect(() => {
    document.title = `${view.name} · Muster`;
  }, [view]);
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => (event.preventDefault(), main.current?.focus())}>
        Skip to the content
      </a>
      <header class="masthead">
        <a class="wordmark" href="#/" aria-label="Muster, to the beginning">
          <Mark />
          Muster
        </a>
        <nav aria-label="Views">
          {VIEWS.map((one) => (
            <a href={`#/${one.path}`} aria-current={one === view ? "page" : undefined}>
              {one.name}
            </a>
          ))}
        </nav>
        <ThemeSwitch />
      </header>
      <main id="main" ref={main} tabIndex={-1}>
        {view.path === "" && <Recognise />}
        {view.path === "people" && <People id={detail} />}
        {view.path === "fleet" && <Fleet />}
      </main>
      <footer>
        <a href="docs">The API behind this page</a>
      </footer>
      <KeyWanted />
    </>
  );
}

function Mark() {
  return (
    <svg viewBox="0 0 24 24" width="22" height="22" aria-hidden="true">
      <path
        d="M3 8V5a2 2 0 0 1 2-2h3M16 3h3a2 2 0 0 1 2 2v3M21 16v3a2 2 0 0 1-2 2h-3M8 21H5a2 2 0 0 1-2-2v-3"
        fill="none"
        stroke="currentColor"
        stroke-width="2.2"
        stroke-linecap="round"
      />
      <circle cx="12" cy="12" r="3.2" fill="currentColor" />
    </svg>
  );
}

const THEME_NAMES: Record<Theme, string> = { system: "Automatic", light: "Light", dark: "Dark" };

function ThemeSwitch() {
  const [chosen, setChosen] = useState(theme);
  return (
    <label class="theme">
      <span class="unseen">Colours</span>
      <svg viewBox="0 0 16 16" width="15" height="15" aria-hidden="true">
        <circle cx="8" cy="8" r="6.5" fill="none" stroke="currentColor" stroke-width="1.5" />
        <path d="M8 1.500a6.500 6.500 0 0 1 0 13z" fill="currentColor" />
      </svg>
      <select
        value={chosen}
        onChange={(event) => {
          const wanted = THEMES.find((one) => one === event.currentTarget.value) ?? "system";
          setTheme(wanted);
          setChosen(wanted);
        }}
      >
        {THEMES.map((one) => (
          <option value={one}>{THEME_NAMES[one]}</option>
        ))}
      </select>
    </label>
  );
}

function KeyWanted() {
  const [wanted, setWanted] = useState(false);
  const [key, setKey] = useState("");
  useEffect(() => whenKeyIsNeeded(setWanted), []);
  if (!wanted) return null;
  const close = () => {
    setWanted(false);
    setKey("");
    keepKey();
  };
  return (
    <Dialog title="This Muster wants an API key" close={close}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          giveKey(key.trim());
          setKey("");
        }}
      >
        <p>
          Its operator makes one with <code>muster keys create</code>. If it runs on this machine, what{" "}
          <code>muster token</code> prints opens it too. It is kept until this tab is closed, and sent to this server
          only.
        </p>
        <label class="field">
          API key
          <input type="password" autocomplete="off" required value={key} onInput={(e) => setKey(e.currentTarget.value)} />
        </label>
        <div class="actions">
          <button type="submit" class="primary">
            Use this key
          </button>
          <button type="button" onClick={close}>
            Not now
          </button>
        </div>
      </form>
    </Dialog>
  );
}

applyTheme();
takeToken();
const page = document.getElementById("page");
if (page) render(<Page />, page);
