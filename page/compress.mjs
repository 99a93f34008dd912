// Lays a compressed copy beside each file of a folder that is worth it, and says how much is loaded first.
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { constants, gzipSync } from "node:zlib";

// What a page may take at first, compressed, in bytes.
const BUDGET = 200_000;

const folder = process.argv[2];
let total = 0;
for (const entry of readdirSync(folder, { recursive: true })) {
  const path = join(folder, entry);
  if (!statSync(path).isFile() || path.endsWith(".gz")) continue;
  const plain = readFileSync(path);
  const small = gzipSync(plain, { level: constants.Z_BEST_COMPRESSION });
  const worth = small.length < plain.length * 0.9;
  if (worth) writeFileSync(`${path}.gz`, small);
  total += worth ? small.length : plain.length;
}
console.log(`the page takes ${(total / 1000).toFixed(1)} KB`);
if (total > BUDGET) throw new Error(`more than ${BUDGET} bytes: leave something out, or load it later`);
