import { defineConfig } from "vite";

// `npm run dev` shows the sources as they are, in front of a Muster that runs here.
const muster = process.env["MUSTER_URL"] ?? "http://127.0.0.1:8000";

export default defineConfig({
  // Wherever a proxy publishes Muster.
  base: "./",
  build: {
    outDir: "dist/files",
    target: "es2022",
    // A data: URL would be another source to allow.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: { proxy: { "/v1": muster, "/samples": muster } },
});
