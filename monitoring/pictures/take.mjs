// Takes the pictures: asks Prometheus, bundles the page, opens it in headless Chromium, writes PNG files.
// usage: node take.mjs --prometheus URL --from SECONDS --to SECONDS --out FOLDER [--about TEXT] BOARD:THEME[:words]...

import { build } from "esbuild";
import { createServer } from "node:http";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import path from "node:path";
import { parseArgs } from "node:util";
import puppeteer from "puppeteer-core";
import UPNG from "upng-js";
import { ask, windowOf } from "./ask.mjs";

const HERE = path.dirname(fileURLToPath(import.meta.url));
const BOARDS = path.join(HERE, "../../helm/ratchet/files/dashboards");
const WIDTH = 1600;
const PATIENCE = 300_000; // milliseconds that a busy machine may take to draw a page

const { values: given, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    prometheus: { type: "string" }, from: { type: "string" }, to: { type: "string" },
    out: { type: "string", default: path.join(HERE, "../../docs/images/dashboards") },
    about: { type: "string", default: "a real run" },
    chromium: { type: "string", default: process.env.CHROMIUM ?? "/usr/bin/chromium" },
  },
});
for (const name of ["prometheus", "from", "to"]) {
  if (given[name] === undefined) fail(`--${name} is missing; see docs/dashboards.md`, 64);
}

// Whatever goes wrong is one line; the browser does not outlive it.
let browser;
let faults = 0;
process.on("uncaughtException", async (error) => {
  await browser?.close().catch(() => {});
  const said = String(error.message).split("\n")[0];
  fail(said === "fetch failed" ? `${given.prometheus} does not answer; is its Prometheus running?` : said, 1);
});

function fail(text, code) {
  console.error(text);
  process.exit(code);
}

// A package of CommonJS whose default export a module would get wrapped once too often.
const WRAPPED = /^react-custom-scrollbars-2$/;
const unwrap = {
  name: "unwrap",
  setup(builds) {
    builds.onResolve({ filter: WRAPPED }, ({ path: name, namespace, resolveDir }) =>
      namespace === "unwrap" ? undefined : { path: name, namespace: "unwrap", pluginData: resolveDir });
    builds.onLoad({ filter: /./, namespace: "unwrap" }, ({ path: name, pluginData: resolveDir }) => ({
      contents: `export { default } from ${JSON.stringify(name)};`, resolveDir,
    }));
  },
};

async function bundled() {
  const made = await build({
    entryPoints: [path.join(HERE, "page.jsx")],
    bundle: true, write: false, format: "esm", outdir: "/", jsx: "automatic", logLevel: "error",
    plugins: [unwrap],
    define: { "process.env.NODE_ENV": '"production"', global: "window" },
    loader: { ".svg": "dataurl", ".ttf": "dataurl", ".woff2": "dataurl", ".woff": "empty", ".png": "dataurl" },
  });
  return new Map(made.outputFiles.map((file) => [path.basename(file.path), file.text]));
}

// A PNG in at most 256 colors: the repository keeps it, and nobody sees the difference.
function small(png) {
  const image = UPNG.decode(png.buffer.slice(png.byteOffset, png.byteOffset + png.byteLength));
  return Buffer.from(UPNG.encode([UPNG.toRGBA8(image)[0]], image.width, image.height, 256));
}

// What the page reads: itself, and the answers of the board that is shown.
function served(files, answered) {
  const css = files.has("page.css") ? '<link rel="stylesheet" href="/page.css">' : "";
  const html = `<!doctype html><html lang="en"><meta charset="utf-8"><title>Ratchet</title><link rel="icon" href="data:,">${css}<body><div id="root"></div><script type="module" src="/page.js"></script></body></html>`;
  const types = { js: "text/javascript", css: "text/css", json: "application/json", html: "text/html" };
  return createServer((request, response) => {
    const name = new URL(request.url, "http://page").pathname.slice(1);
    const text = name === "" ? html : name === "answers.json" ? JSON.stringify(answered.now) : files.get(name);
    response.writeHead(text === undefined ? 404 : 200, { "content-type": types[name.split(".").pop()] ?? types.html });
    response.end(text);
  });
}

const window = windowOf(Number(given.from), Number(given.to));
const versions = JSON.parse(await readFile(path.join(HERE, "package.json"))).dependencies;
const answered = { now: null };
const server = served(await bundled(), answered);
await new Promise((done) => server.listen(0, "127.0.0.1", done));
browser = await puppeteer.launch({
  executablePath: given.chromium, args: ["--no-sandbox", "--disable-gpu", "--force-color-profile=srgb", "--lang=en-US"],
});
await mkdir(given.out, { recursive: true });
for (const wanted of positionals) {
  const [board, theme, words] = wanted.split(":");
  const dashboard = JSON.parse(await readFile(path.join(BOARDS, `${board}.json`)));
  const answers = await ask(given.prometheus, dashboard, window);
  answered.now = { ...answers, theme, words: words === "words", about: given.about, library: versions["@grafana/ui"] };
  const page = await browser.newPage();
  const note = (text) => (faults++, console.error(`${board} ${theme}: ${text}`));
  page.on("console", (said) => ["error", "warn"].includes(said.type()) && note(said.text()));
  const broken = new Promise((_, stop) => page.on("pageerror", (error) => (note(error.stack ?? error), stop(error))));
  page.on("response", (got) => got.status() >= 400 && note(`${got.status()} ${got.url()}`));
  await page.setViewport({ width: WIDTH, height: 1000 });
  await page.goto(`http://127.0.0.1:${server.address().port}/`, { timeout: PATIENCE });
  const drawn = page.waitForFunction(() => document.querySelector("[data-drawn]"), { polling: 300, timeout: PATIENCE });
  await Promise.race([drawn, broken]);
  const height = await page.evaluate(() => document.querySelector("[data-drawn]").scrollHeight);
  await page.setViewport({ width: WIDTH, height });
  await new Promise((done) => setTimeout(done, 1500)); // fonts and canvases settle
  const file = path.join(given.out, `${board}-${theme}.png`);
  await writeFile(file, small(await page.screenshot()));
  await page.close();
  console.log(file);
}
await browser.close();
server.close();
if (faults) fail(`${faults} errors or warnings in the browser's console`, 1);
