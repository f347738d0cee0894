// Chromium opens pages with made-up figures from a file: of a comparison, of a simulated day, and of hostile networks.
import assert from "node:assert/strict"
import { execFileSync } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, test } from "node:test"
import { pathToFileURL } from "node:url"
import { chromium } from "playwright-core"
import { violations } from "./axe.js"
import { startBrowser } from "./chromium.js"

const ROOT = new URL("../..", import.meta.url).pathname

let browser
let close
let folder
let html
let url
const others = {}

before(async () => {
  // With the features of the other tests; others would build every library again, which takes minutes.
  const command = ["test", "-q", "--workspace", "--locked", "--example", "report_page"]
  const printed = (PAGE) => execFileSync("cargo", command, { cwd: ROOT, encoding: "utf8", env: { ...process.env, PAGE } })
  html = printed("report")
  folder = mkdtempSync(join(tmpdir(), "report-page-"))
  for (const name of ["day", "networks"]) {
    writeFileSync(join(folder, `${name}.html`), printed(name))
    others[name] = pathToFileURL(join(folder, `${name}.html`)).href
  }
  writeFileSync(join(folder, "report.html"), html)
  url = pathToFileURL(join(folder, "report.html")).href
  ;({ browser, close } = await startBrowser(chromium))
})

after(async () => {
  await close?.()
  if (folder) rmSync(folder, { recursive: true })
})

// The page, with its errors and its requests.
async function open(context, colorScheme, width, at = url) {
  const page = await browser.newPage({ colorScheme, viewport: { width, height: 900 } })
  context.after(() => page.close())
  const [complaints, requests] = [[], []]
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && complaints.push(message.text()))
  page.on("pageerror", (error) => complaints.push(String(error)))
  page.on("request", (request) => requests.push(request.url()))
  await page.goto(at)
  await page.waitForSelector("#facts pre")
  await painted(page)
  return { page, complaints, requests }
}

const painted = (page) =>
  page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))))

// How many pixels of each canvas have a colour. Axes and grids are grey, so only marks and curves do.
const coloured = (page) => page.$$eval("canvas", (canvases) => canvases.map((canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height)
  let count = 0
  for (let at = 0; at < data.length; at += 4) {
    const pixel = data.subarray(at, at + 3)
    if (Math.max(...pixel) - Math.min(...pixel) > 60) count++
  }
  return count
}))

for (const colorScheme of ["light", "dark"]) {
  for (const width of [1280, 390]) {
    test(`the page is whole and axe finds nothing on a ${colorScheme} screen ${width} pixels wide`, async (context) => {
      const { page, complaints, requests } = await open(context, colorScheme, width)
      assert.deepEqual(complaints, [])
      assert.deepEqual(requests, [url])
      const counts = await coloured(page)
      assert.equal(counts.length, 1 + 3 + 2 * 2)
      for (const count of counts) assert(count > 200, `${counts}`)
      const { inside, outside } = await page.evaluate(() => ({
        inside: document.documentElement.scrollWidth, outside: document.documentElement.clientWidth,
      }))
      assert(inside <= outside, `${inside} pixels of content on ${outside}`)
      assert.deepEqual(await violations(page), [])
    })
  }
}

for (const name of ["day", "networks"]) {
  for (const [colorScheme, width] of [["light", 1280], ["dark", 390]]) {
    test(`the page of ${name} is whole and axe finds nothing on a ${colorScheme} screen ${width} pixels wide`, async (context) => {
      const { page, complaints } = await open(context, colorScheme, width, others[name])
      assert.deepEqual(complaints, [])
      assert.notEqual(await page.locator("#verdict").innerText(), "")
      assert(await page.locator(`#${name} tbody tr`).count() >= 5)
      assert(await page.locator("#measured").isHidden() && await page.locator("#plots").isHidden())
      assert(await page.evaluate(() => document.documentElement.scrollWidth <= document.documentElement.clientWidth))
      assert.deepEqual(await violations(page), [])
    })
  }
}

test("a cell of hostile networks says what was lost", async (context) => {
  const { page } = await open(context, "light", 1280, others.networks)
  const row = page.getByRole("row", { name: /^proxy-buffer/ })
  assert.equal(await row.locator(".bad").innerText(), "nothing arrived")
})

test("the verdict is on top, and the table has eight columns until all are wanted", async (context) => {
  const { page } = await open(context, "light", 1280)
  assert.match(await page.locator("#verdict").innerText(), /^On a simulated day .* the least of a phone's battery/)
  const heads = () => page.locator("#table thead th").count()
  assert.equal(await heads(), 8)
  const best = page.locator("#table .best")
  assert(await best.count() > 0)
  assert.match(await best.first().getAttribute("title"), / to .* in 3 rounds$/)
  await page.getByRole("button", { name: "All columns" }).press("Enter")
  assert(await heads() > 20)
})

test("a grid that is drawn again stays grey", async (context) => {
  const { page } = await open(context, "light", 1280)
  const before = await coloured(page)
  const button = page.locator("#legend button").first()
  await button.press("Enter")
  await button.press("Enter")
  await painted(page)
  const after = await coloured(page)
  for (const [index, count] of after.entries()) assert(count < before[index] * 1.2, `${before}, then ${after}`)
})

test("on paper the page is light and narrow, and nothing is closed", async (context) => {
  const { page, complaints } = await open(context, "dark", 1280)
  const state = () => page.evaluate(() => ({
    theme: document.documentElement.dataset.theme ?? "the system's",
    closed: document.querySelectorAll("details:not([open])").length,
    widest: Math.max(...[...document.querySelectorAll("canvas")].map((canvas) => canvas.clientWidth)),
  }))
  const before = await state()
  await page.evaluate(() => dispatchEvent(new Event("beforeprint")))
  assert.deepEqual(await state(), { theme: "light", closed: 0, widest: 690 })
  await page.evaluate(() => dispatchEvent(new Event("afterprint")))
  await painted(page)
  assert.deepEqual(await state(), before)
  assert.deepEqual(complaints, [])
})

test("names of a report are text", async (context) => {
  const { page } = await open(context, "light", 1280)
  assert.equal(await page.$("img"), null)
  const name = "durable-streams <img src=x onerror=alert(1)> sse"
  assert.equal(await page.getByRole("button", { name }).count(), 1)
  assert.equal(await page.getByRole("rowheader", { name }).count(), 1)
})

test("the legend and the theme answer to the keyboard", async (context) => {
  const { page, complaints } = await open(context, "light", 1280)
  const bars = () => page.locator("#bars .bar", { hasText: "websocket" }).count()
  const canvas = () => page.$eval("#latency canvas", (canvas) => canvas.toDataURL())
  const [before, barsBefore] = [await canvas(), await bars()]
  const button = page.getByRole("button", { name: "websocket", exact: true })
  await button.press("Enter")
  await painted(page)
  assert.equal(await button.getAttribute("aria-pressed"), "false")
  assert.equal(await bars(), 0)
  assert.notEqual(await canvas(), before)
  await button.press("Space")
  await painted(page)
  assert.equal(await bars(), barsBefore)
  assert.equal(await canvas(), before)

  const background = () => page.$eval("body", (body) => getComputedStyle(body).backgroundColor)
  const light = await background()
  await page.getByRole("button", { name: "Dark or light" }).press("Enter")
  await painted(page)
  assert.notEqual(await background(), light)
  assert.notEqual(await canvas(), before)
  assert.deepEqual(complaints, [])
})

test("another radio changes the energies", async (context) => {
  const { page } = await open(context, "light", 1280)
  const energies = () => page.locator("#bars figure").last().innerText()
  assert.match(await energies(), /LTE/)
  await page.getByLabel("Radio").selectOption("Wi-Fi")
  assert.match(await energies(), /Wi-Fi/)
})

test("the plot shows the values near the pointer", async (context) => {
  const { page } = await open(context, "light", 1280)
  const over = page.locator("#by-requests .u-over")
  await over.scrollIntoViewIfNeeded()
  const box = await over.boundingBox()
  const tip = page.locator("#by-requests .tip")
  const texts = new Set()
  for (let x = 5; x < box.width; x += 15) {
    for (let y = 5; y < box.height; y += 15) {
      await page.mouse.move(box.x + x, box.y + y)
      if (await tip.isVisible()) texts.add(await tip.innerText())
    }
  }
  assert(texts.size >= 5, [...texts].join("\n"))
  for (const text of texts) assert.match(text, /: .* requests a client-hour, p95 .* ms$/)
})

// The page of the same report, changed.
function changed(name, change) {
  const data = /(?<=<script id="data" type="application\/json">).*(?=<\/script>)/
  const path = join(folder, `${name}.html`)
  writeFileSync(path, html.replace(data, (text) => {
    const all = JSON.parse(text)
    change(all)
    return JSON.stringify(all).replaceAll("<", "\\u003c")
  }))
  return pathToFileURL(path).href
}

test("a comparison that was cut short is shown as far as it came", async (context) => {
  const at = changed("short", (all) => {
    all.sweep = null
    all.report.runs.length = 2
    // Nothing arrived, and nothing is known.
    Object.assign(all.report.runs[1], { interrupted: true, latency: null, energy: [], serverCost: null, prediction: null })
  })
  const { page, complaints } = await open(context, "light", 1280, at)
  assert.deepEqual(complaints, [])
  assert.equal(await page.getByRole("rowheader", { name: "(cut short)" }).count(), 1)
  assert(await page.locator("#sweep").isHidden())
  for (const button of await page.locator("#legend button").all()) await button.click()
  await painted(page)
  assert.deepEqual(complaints, [])
})

test("a comparison without a run still shows its settings", async (context) => {
  const at = changed("none", (all) => Object.assign(all, { sweep: null, report: { ...all.report, runs: [] } }))
  const { page, complaints } = await open(context, "light", 1280, at)
  assert.deepEqual(complaints, [])
  assert.match(await page.locator("#facts pre").innerText(), /^cargo run/)
})
