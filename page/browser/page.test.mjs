// The page in a real browser, in front of a real Muster: what people do with it, from the first stranger to the receipt.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { createServer, request } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { chromium } from "playwright-core";

import { browser as program, missing, root, run, samples, start } from "./service.mjs";

const why = missing();
if (why) {
  if (process.env.CI === "true") throw new Error(`the page can not be tested: ${why}`);
  console.error(`SKIPPED: the page is not tested: ${why}`);
}

const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
const pictures = join(root, "target/page");
const WIDTHS = { wide: { width: 1280, height: 900 }, narrow: { width: 390, height: 844 } };

let service;
let browser;
let context;
let page;
/** What the browser complained of, besides answers that the page itself shows. */
const complaints = [];
const asked = new Set();
/** What is answered with an error as it should: a photograph without a face, one that is too poor. */
const expected = ["/v1/recognize", "/v1/people"];

const of = (name) => samples().filter((one) => one.person === name);
const file = (name, n = 0) => of(name)[n].file;
const OBAMA = "Barack Obama";
const BIDEN = "Joe Biden";

before(async () => {
  if (why) return;
  mkdirSync(pictures, { recursive: true });
  service = await start("max_instances = 6\n");
  browser = await chromium.launch({
    executablePath: spawnSync("which", [program()], { encoding: "utf8" }).stdout.trim(),
    args: ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"],
  });
  context = await browser.newContext({ viewport: WIDTHS.wide, reducedMotion: "reduce", permissions: ["camera"] });
  context.setDefaultTimeout(20_000);
  page = await context.newPage();
  watch(page);
});

after(async () => {
  await browser?.close();
  await service?.stop();
});

function watch(page) {
  page.on("console", (message) => {
    if (!["error", "warning"].includes(message.type())) return;
    const { url } = message.location();
    if (expected.some((path) => url.endsWith(path))) return;
    complaints.push(`${message.text()} (${url})`);
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => asked.add(new URL(request.url()).origin));
}

let failed = false;

/** One step of the story: those after one that failed have nothing to go on from. */
const step = (name, story) =>
  test(name, { skip: why ?? false, timeout: 60_000 }, async (t) => {
    if (failed) return t.skip("a step before it failed");
    failed = true;
    await story();
    failed = false;
  });

const button = (name) => page.getByRole("button", { name, exact: true });
const heading = (name) => page.getByRole("heading", { name });
const view = (name) => page.getByRole("navigation", { name: "Views" }).getByRole("link", { name }).click();
const row = (name) => page.locator(".roll").getByRole("link", { name });
const face = (n) => page.locator(`#face-${n}`);

/** Gives photographs to the view at hand. */
async function give(...files) {
  await page.getByLabel("Photographs", { exact: true }).setInputFiles(files);
}

/** Waits until the first face has this title. */
async function named(name, n = 0) {
  await face(n).getByRole("heading", { name }).waitFor();
}

/** Waits until the photographs in view are there: one that is deleted before the browser has it is missed in its console. */
async function portraits() {
  await page.waitForFunction(() => {
    const all = [...document.querySelectorAll("img.portrait")];
    return all.length > 0 && all.every((image) => image.naturalWidth > 0);
  });
}

/** A picture at both widths in both themes, each without a serious finding of axe. */
async function shoot(name) {
  for (const [width, size] of Object.entries(WIDTHS)) {
    await page.setViewportSize(size);
    for (const theme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme: theme, reducedMotion: "reduce" });
      await page.waitForFunction(() => document.fonts.status === "loaded");
      await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
      await page.screenshot({ path: join(pictures, `${name}-${width}-${theme}.png`) });
      const sideways = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(sideways <= 0, `${name} is ${sideways} pixels too wide for ${size.width}`);
      await examine(`${name}, ${width}, ${theme}`);
    }
  }
  await page.setViewportSize(WIDTHS.wide);
  await page.emulateMedia({ colorScheme: "light", reducedMotion: "reduce" });
}

async function examine(where) {
  // Evaluated from outside, since the page's own policy lets nothing in.
  await page.evaluate(readFileSync(axe, "utf8"));
  const findings = await page.evaluate(async () => {
    const { violations } = await window.axe.run(document, { resultTypes: ["violations"] });
    return violations
      .filter(({ impact }) => ["serious", "critical"].includes(impact))
      .map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html.slice(0, 160)).join(" | ")}`);
  });
  assert.deepEqual(findings, [], where);
}

step("the page comes from the binary, small, soon, and with a strict policy", async () => {
  const begun = performance.now();
  const answer = await page.goto(service.link);
  await heading("Who is in the photograph?").waitFor();
  const took = performance.now() - begun;
  const headers = answer.headers();
  assert.match(headers["content-security-policy"], /^default-src 'none'; script-src 'self';/);
  assert.equal(headers["x-content-type-options"], "nosniff");
  const loaded = await page.evaluate(() =>
    performance.getEntries().reduce((bytes, entry) => bytes + (/\/samples/.test(entry.name) ? 0 : (entry.transferSize ?? 0)), 0),
  );
  console.log(`first load: ${(loaded / 1000).toFixed(1)} KB in ${took.toFixed(0)} ms`);
  assert.ok(loaded > 10_000 && loaded < 200_000, `${loaded} bytes`);
  assert.equal(page.url(), `${service.url}/`, "the token is in the address no more");
  const again = await fetch(service.url, { headers: { "if-none-match": headers.etag } });
  assert.equal(again.status, 304);
  await page.getByRole("button", { name: OBAMA }).first().waitFor();
  await shoot("recognise-empty");
});

step("a stranger is enrolled from the answer, and known from then on", async () => {
  await give(file(OBAMA));
  await named("Unknown");
  await page.getByText("Nobody is enrolled.").waitFor();
  await button("Enrol this face").click();
  // A mistake, to be corrected below.
  await page.getByLabel("Name", { exact: true }).fill("George");
  await page.keyboard.press("Enter");
  await named("George");
  await give(file(OBAMA, 1));
  await named("George");
  await page.getByRole("button", { name: "Face 1: George" }).waitFor();
});

step("a wrong answer is corrected, then enrolled under the right name", async () => {
  await button("Not George").click();
  await page.getByText("Noted: this face is not taken for George again.").waitFor();
  await named("Unknown");
  await button("Enrol this face").click();
  await page.getByLabel("Name", { exact: true }).fill(OBAMA);
  await button("Enrol").click();
  await named(OBAMA);
  await shoot("recognise-known");
});

step("several photographs are looked at together, every face of a group", async () => {
  await button("Clear").click();
  await give(file("-"), file(OBAMA, 2), file(BIDEN), join(root, "README.md"));
  await page.getByText("README.md is no photograph and is left out.").waitFor();
  await page.getByText("All 3 photographs looked at").waitFor();
  await named("Unknown", 5);
  assert.equal(await page.locator(".box").count(), 6);
  assert.equal(await page.locator(".frame.done").count(), 3);
  await shoot("recognise");
});

step("a face is pasted, and one is taken with the camera", async () => {
  await button("Clear").click();
  await page.evaluate(async (path) => {
    const photo = await (await fetch(path)).blob();
    const data = new DataTransfer();
    data.items.add(new File([photo], "pasted.jpg", { type: "image/jpeg" }));
    document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data }));
  }, `/samples/${file(BIDEN).split("/").at(-1)}`);
  await named("Unknown");
  await button("Use the camera").click();
  await page.getByRole("dialog", { name: "Take a photograph" }).waitFor();
  await examine("the camera");
  await button("Take it").click();
  // The browser's test picture shows nobody.
  await page.getByText("No face was found in camera.jpg").waitFor();
  await button("Clear").click();
});

step("people are added, searched, renamed, given more photographs, and merged", async () => {
  await view("People");
  await page.getByText("2 people are enrolled").waitFor();
  await button("Add a person").click();
  await page.getByLabel("Name", { exact: true }).fill(BIDEN);
  await page.getByLabel("Photographs that show").setInputFiles(file(BIDEN));
  await examine("the dialogue to add a person");
  await button("Enrol").click();
  await heading(BIDEN).waitFor();

  await view("People");
  await page.getByText("3 people are enrolled").waitFor();
  await shoot("people");
  await page.getByLabel("Search by name").fill("geo");
  await page.getByText("1 of 3 people").waitFor();
  await row(/^George/).click();
  await button("Rename").click();
  await page.getByLabel("Name", { exact: true }).fill("Georg");
  await page.keyboard.press("Enter");
  await heading("Georg").waitFor();

  await view("People");
  await row(new RegExp(`^${OBAMA}`)).click();
  await page.getByLabel(`Photographs of ${OBAMA}`).setInputFiles(file(OBAMA, 2));
  await page.getByText("2 photographs").first().waitFor();
  await button("Merge").click();
  await page.getByRole("radio", { name: /Georg/ }).check();
  await portraits();
  await page.getByRole("dialog").getByRole("button", { name: "Merge" }).click();
  await page.getByText("3 photographs").first().waitFor();
  await shoot("person");
});

step("doubtful enrolments are pointed out, in the list and at the photograph", async () => {
  // Biden's photograph among Obama's, and Biden once more under another name.
  const call = async (path, method, form) => {
    const headers = { authorization: `Bearer ${service.token}` };
    const answer = await fetch(`${service.url}${path}`, { method, body: form, headers });
    assert.ok(answer.ok, await answer.clone().text());
    return answer.json();
  };
  const form = (fields = {}) => {
    const form = new FormData();
    for (const [name, text] of Object.entries(fields)) form.append(name, text);
    form.append("image", new Blob([readFileSync(file(BIDEN))]), "biden.jpg");
    return form;
  };
  const { people } = await call("/v1/people", "GET");
  const obama = people.find((person) => person.name === OBAMA);
  const faces = `/v1/people/${obama.id}/faces`;
  const wrong = (await call(faces, "POST", form())).faces.at(-1);
  const other = await call("/v1/people", "POST", form({ name: "Joseph" }));

  const found = await call("/v1/gallery/health", "GET");
  const [mislabelled] = found.mislabelled;
  assert.equal(mislabelled.face, wrong.id);
  assert.equal(found.duplicates.length, 1);
  await view("People");
  const all = found.mislabelled.length + found.duplicates.length + found.weak.length;
  await page.getByText(`${all} enrolments are worth a look`).waitFor();
  await page.getByText(/doubts?$/).first().waitFor();
  await shoot("people-doubtful");
  await row(new RegExp(`^${OBAMA}.*doubt`)).click();
  const { looks_like, to_other, to_own } = mislabelled;
  const said = `looks like ${looks_like.name} (${to_other.toFixed(2)}) rather than ${OBAMA} (${to_own.toFixed(2)})`;
  await page.getByText(said).waitFor();
  await portraits();
  await call(`${faces}/${wrong.id}`, "DELETE");
  await call(`/v1/people/${other.id}`, "DELETE");
});

step("a poor photograph is enrolled where that is ticked, and marked", async () => {
  const tiny = await page.evaluate(async (url) => {
    const image = await createImageBitmap(await (await fetch(url)).blob(), { resizeWidth: 44, resizeQuality: "high" });
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.width, image.height];
    canvas.getContext("2d").drawImage(image, 0, 0);
    return canvas.toDataURL("image/png").split(",")[1];
  }, `samples/${file(BIDEN).split("/").at(-1)}`);
  const photo = { name: "tiny.png", mimeType: "image/png", buffer: Buffer.from(tiny, "base64") };
  await view("People");
  await button("Add a person").click();
  await page.getByLabel("Name", { exact: true }).fill("Tiny");
  await page.getByLabel("Photographs that show").setInputFiles(photo);
  await button("Enrol").click();
  await page.getByRole("alert").getByText("accept_unfit=true").waitFor();
  await page.getByLabel("Enrol although the photograph is poor").check();
  await examine("the dialogue to add a person all the same");
  await button("Enrol").click();
  await heading("Tiny").waitFor();
  await page.getByText("Poor photograph").waitFor();
  await page.getByText("The face is too small", { exact: false }).waitFor();
  await page.getByLabel("Enrol although the photograph is poor").check();
  await page.getByLabel("Photographs of Tiny").setInputFiles({ ...photo, name: "again.png" });
  await page.getByText("2 photographs").first().waitFor();
  await view("People");
  await page.getByText("does not meet the limits").first().waitFor({ state: "attached" });
  await row(/^Tiny/).click();
  await heading("Tiny").waitFor();
  await portraits();
  await button("Delete").click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await heading("Tiny is deleted").waitFor();
});

step("a photograph and a person are deleted, each with a receipt", async () => {
  await view("People");
  await row(new RegExp(`^${OBAMA}`)).click();
  await heading(OBAMA).waitFor();
  await portraits();
  await page.getByRole("button", { name: /^Delete the photograph/ }).last().click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await page.getByRole("dialog", { name: "The photograph is deleted" }).waitFor();
  await button("Close").click();
  await page.getByText("2 photographs").first().waitFor();

  await view("People");
  await row(new RegExp(`^${BIDEN}`)).click();
  await heading(BIDEN).waitFor();
  await portraits();
  await button("Delete").click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await heading(`${BIDEN} is deleted`).waitFor();
  const [saved] = await Promise.all([page.waitForEvent("download"), button("Save the receipt").click()]);
  assert.match(saved.suggestedFilename(), /^deletion-.*\.json$/);
  await shoot("receipt");

  await view("Recognise");
  await give(file(BIDEN), file(OBAMA, 1));
  await named("Unknown");
  await page.locator(".frame.done").nth(1).click();
  await named(OBAMA);
});

step("a burst takes the fleet from nothing to several workers and back", async () => {
  await view("Fleet");
  await page.getByText("No workers, nothing to do.").waitFor();
  const burst = async (photographs) => {
    await page.getByLabel("Photographs in a burst").selectOption(String(photographs));
    await button("Send a burst").click();
    await page.locator(".places i.running").nth(2).waitFor();
  };
  await burst(60);
  await page.getByText("60 of 60 answered", { exact: true }).waitFor();
  await page.getByText("No workers, nothing to do.").waitFor();
  await burst(200);
  await page.locator("tbody tr").nth(1).waitFor();
  await page.waitForFunction(() => Number(document.querySelector("tbody tr td:last-child")?.textContent) > 5);
  await shoot("fleet");
  await page.getByText("200 of 200 answered", { exact: true }).waitFor();
  await page.getByText("No workers, nothing to do.").waitFor();
  assert.ok((await page.locator(".reasons li").count()) > 2);
  // A page that is opened now sees the burst too.
  const other = await context.newPage();
  watch(other);
  await other.goto(service.link);
  await other.goto(`${service.url}/#/fleet`);
  await other.getByText("No workers, nothing to do.").waitFor();
  assert.ok((await other.locator(".reasons li").count()) > 2);
  await other.close();
});

step("a key is asked for where one is wanted, sent with everything, and kept by the tab", async () => {
  const guarded = await start("require_keys = true\nmax_instances = 1\n");
  try {
    const made = run(["keys", "--json", "create", "--name", "a browser", "--scope", "admin", "--data", guarded.data]);
    const { key } = JSON.parse(made);
    const other = await context.newPage();
    await other.goto(`${guarded.url}/#/people`);
    const asks = other.getByRole("dialog", { name: "This Muster wants an API key" });
    const give = async (key) => {
      await asks.getByLabel("API key").fill(key);
      await asks.getByRole("button", { name: "Use this key" }).click();
    };
    await give("muster_of_nobody");
    await asks.getByLabel("API key").waitFor();
    await give(` ${key} `);
    await other.getByText("Nobody is enrolled yet").waitFor();
    await other.getByRole("button", { name: "Add a person" }).click();
    await other.getByLabel("Name", { exact: true }).fill(OBAMA);
    await other.getByLabel("Photographs that show").setInputFiles(file(OBAMA));
    await other.getByRole("button", { name: "Enrol", exact: true }).click();
    // An image can not be asked for with a key: it is fetched.
    await other.waitForFunction(() => document.querySelector("img.portrait")?.naturalWidth > 0);
    assert.match(await other.locator("img.portrait").getAttribute("src"), /^blob:/);
    await other.goto(`${guarded.url}/#/fleet`);
    await other.reload();
    await other.getByText("No workers, nothing to do.").waitFor();
    assert.ok(!(await asks.isVisible()));
    await other.close();
  } finally {
    assert.equal(await guarded.stop(), 0);
  }
});

step("without the local token it recognises and asks for a key; a link with it opens the rest", async () => {
  const other = await context.newPage();
  await other.goto(service.url);
  await other.getByLabel("Photographs", { exact: true }).setInputFiles(file(BIDEN));
  await other.locator("#face-0").waitFor();
  await other.getByRole("navigation", { name: "Views" }).getByRole("link", { name: "People" }).click();
  const asks = other.getByRole("dialog", { name: "This Muster wants an API key" });
  await asks.waitFor();
  await other.goto(`${service.url}/#token=${service.token}`);
  await other.getByRole("navigation", { name: "Views" }).getByRole("link", { name: "People" }).click();
  await other.getByText("1 person is enrolled").waitFor();
  assert.ok(!(await asks.isVisible()));
  assert.ok(!other.url().includes(service.token));
  await other.close();
});

step("it works below a path that a proxy publishes it under", async () => {
  const below = await start('max_instances = 2\nbase_path = "/faces"\n');
  // It takes the path off, as nginx does with `location /faces/ { proxy_pass http://…/; }`.
  const proxy = createServer((asked, answer) => {
    const path = asked.url.replace(/^\/faces(?=\/)/, "");
    if (path === asked.url) return answer.writeHead(404).end();
    const to = request(below.url + path, { method: asked.method, headers: asked.headers }, (from) => {
      answer.writeHead(from.statusCode, from.headers);
      from.pipe(answer);
    });
    to.once("error", () => answer.destroy());
    answer.once("close", () => to.destroy());
    asked.pipe(to);
  });
  const other = await context.newPage();
  try {
    await new Promise((listening) => proxy.listen(0, "127.0.0.1", listening));
    const url = `http://127.0.0.1:${proxy.address().port}/faces/`;
    const missed = [];
    other.on("response", (response) => response.status() >= 400 && missed.push(response.url()));
    await other.goto(url);
    await other.getByAltText("A group of people").click();
    await other.getByText("6 faces").first().waitFor();
    await other.getByRole("link", { name: "The API behind this page" }).click();
    await other.getByText("/v1/recognize").first().waitFor();
    assert.equal(other.url(), `${url}docs`);
    assert.deepEqual(missed, []);
  } finally {
    await other.close();
    proxy.close();
    proxy.closeAllConnections();
    assert.equal(await below.stop(), 0);
  }
});

step("the keyboard reaches everything, and the theme is kept", async () => {
  await page.goto(service.url);
  await heading("Who is in the photograph?").waitFor();
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the content");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Choose photographs");
  await page.getByLabel("Colours").selectOption("dark");
  await page.reload();
  const paper = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  assert.equal(await paper(), "rgb(20, 24, 26)");
  await page.getByLabel("Colours").selectOption("system");
  assert.equal(await paper(), "rgb(247, 245, 240)");
});

step("nothing was asked of anybody else, and the console is clean", async () => {
  // A picture that the page itself has is of no server.
  asked.delete("null");
  assert.deepEqual([...asked], [service.url]);
  assert.deepEqual(complaints, []);
});

step("it says so when Muster is gone, and an open page does not hold it up", async () => {
  await view("Fleet");
  await page.getByText("No workers, nothing to do.").waitFor();
  const begun = performance.now();
  assert.equal(await service.stop(), 0);
  assert.ok(performance.now() - begun < 10_000, "it stops at once");
  await page.getByRole("alert").getByText("Muster does not answer").waitFor();
  service = undefined;
});
