// A real Muster in processes of its own, and a real browser in front of it.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

export const root = new URL("../..", import.meta.url).pathname;
const program = process.env.MUSTER_PROGRAM ?? join(root, "target/release/muster");

const here = (name) => spawnSync(name, ["--version"], { encoding: "utf8" }).status === 0;

/** Why the suite can not run here, if so. */
export function missing() {
  if (!browser()) {
    return "there is no Chromium here: install it (apt-get install chromium), or name one in MUSTER_CHROMIUM";
  }
  if (!here(program)) return `there is no ${program}: run make build`;
  if (samples().length === 0) return "the models are not installed: run make models";
  return undefined;
}

export function browser() {
  const named = process.env.MUSTER_CHROMIUM;
  return [...(named ? [named] : []), "chromium", "chromium-browser", "google-chrome"].find(here);
}

/** The installed sample photographs: whom each shows (`-` for the group), and its file. */
export function samples() {
  const listed = spawnSync(program, ["models", "samples"], { encoding: "utf8" });
  if (listed.status !== 0) return [];
  const lines = listed.stdout.trim().split("\n");
  return lines.map((line) => line.split("\t")).map(([person, file]) => ({ person, file }));
}

/** Runs `muster` to its end. */
export function run(args, env = {}) {
  const done = spawnSync(program, args, { encoding: "utf8", env: { ...process.env, ...env } });
  if (done.status !== 0) throw new Error(`muster ${args.join(" ")}: ${done.stderr}`);
  return done.stdout;
}

/** `muster up` on a folder of its own and a free port, with more settings from `toml`. */
export async function start(toml) {
  const folder = mkdtempSync(join(tmpdir(), "muster-page-"));
  const config = join(folder, "muster.toml");
  const data = join(folder, "data");
  writeFileSync(config, toml);
  const child = spawn(program, ["up", "--listen", "127.0.0.1:0", "--config", config, "--data", data], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, MUSTER_LOG: "warn" },
  });
  const ended = new Promise((resolve) => child.once("exit", (code, signal) => resolve(code ?? signal)));
  // However this process ends, nothing is left behind.
  const kill = () => child.kill("SIGKILL");
  process.once("exit", kill);
  const url = await new Promise((resolve, reject) => {
    createInterface({ input: child.stdout }).on("line", (line) => {
      const [, found] = /^muster listens on (.*)$/.exec(line) ?? [];
      if (found) resolve(found);
    });
    void ended.then((how) => reject(new Error(`muster up ended with ${how}`)));
  });
  for (;;) {
    const ready = await fetch(`${url}/readyz`).catch(() => undefined);
    if (ready?.ok) break;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const file = join(data, "local-token");
  const token = existsSync(file) ? readFileSync(file, "utf8").trim() : undefined;
  return {
    url,
    /** What opens it to whoever runs it, where there is such a token, and the link that brings it to the page. */
    token,
    link: `${url}/#token=${token}`,
    config,
    data,
    pid: child.pid,
    /** Asks it to stop, and says how it ended. */
    async stop() {
      child.kill("SIGTERM");
      const how = await ended;
      process.removeListener("exit", kill);
      rmSync(folder, { recursive: true, force: true });
      return how;
    },
  };
}
