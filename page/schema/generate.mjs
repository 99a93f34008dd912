// Makes ../src/schema.ts, the API's types, of schemas.json, the schemas of a Muster's /openapi.json.
//
//   node generate.mjs                          of the schemas that are here
//   node generate.mjs http://127.0.0.1:8000    of the schemas of a Muster that runs there
//   node generate.mjs --check                  fails where src/schema.ts is not what would be made
//
// A package of its own, since the generator needs the compiler's API of TypeScript 5, and since only
// who changes the API needs the generator.

import { readFile, writeFile } from "node:fs/promises";
import openapiTS, { astToString } from "openapi-typescript";

const SCHEMAS = new URL("schemas.json", import.meta.url);
const TYPES = new URL("../src/schema.ts", import.meta.url);
const HEAD = "// Made by schema/generate.mjs of schema/schemas.json: not to be changed by hand.\n\n";

const [argument] = process.argv.slice(2);
if (argument && argument !== "--check") {
  const answer = await fetch(new URL("/openapi.json", argument));
  if (!answer.ok) throw new Error(`${answer.url} answers ${answer.status}`);
  const { components } = await answer.json();
  await writeFile(SCHEMAS, `${JSON.stringify(components.schemas, null, 2)}\n`);
}

const schemas = JSON.parse(await readFile(SCHEMAS, "utf8"));
const types = await openapiTS({
  openapi: "3.1.0",
  info: { title: "Muster", version: "0" },
  paths: {},
  components: { schemas },
});
const made = HEAD + astToString(types);
if (argument === "--check") {
  if ((await readFile(TYPES, "utf8")) !== made) {
    console.error("page/src/schema.ts is not what page/schema/schemas.json makes: npm --prefix page run schema");
    process.exit(1);
  }
} else {
  await writeFile(TYPES, made);
}
