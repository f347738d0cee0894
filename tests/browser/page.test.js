// The page at /, as its reader uses it.
import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { after, before, test } from "node:test"
import { chromium } from "playwright-core"
import { token } from "../conformance/credentials.js"
import { violations } from "./axe.js"
import { startBrowser } from "./chromium.js"
import { until, world } from "./world.js"

const PANELS = ["Fallback client", "Short poll", "Long poll", "Server-sent events", "NDJSON", "WebSocket", "MQTT over WebSocket"]

let browser
let close

before(async () => ({ browser, close } = await startBrowser(chromium)))
after(() => close?.())

// The page, with its errors and its requests.
async function open(context, options = {}, prepare = () => {}, further = []) {
  const { gateway } = await world(context, { mqtt: "127.0.0.1:0", further })
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, ...options })
  context.after(() => page.close())
  const [complaints, requests] = [[], []]
  // A browser complains of the 401 that lets the page ask for a token.
  const isComplaint = (message) => ["error", "warning"].includes(message.type()) && !(token && message.text().includes("status of 401"))
  page.on("console", (message) => isComplaint(message) && complaints.push(message.text()))
  page.on("pageerror", (error) => complaints.push(String(error)))
  page.on("request", (request) => requests.push(request.url()))
  page.on("websocket", (socket) => requests.push(socket.url().replace("ws", "http")))
  await prepare(page)
  await page.goto(gateway.url)
  if (token) {
    await page.getByLabel("Token").fill(token)
    await page.getByRole("button", { name: "Sign in" }).click()
  }
  await page.getByRole("heading", { name: "Fallback client" }).waitFor()
  const panel = (name) => page.locator(".panel", { has: page.getByRole("heading", { name, exact: true }) })
  const figure = async (name, what) => panel(name).locator(`.${what}`).innerText()
  // What is published before MQTT is subscribed does not arrive there.
  const subscribed = () => panel("MQTT over WebSocket").getByText("reading", { exact: true }).waitFor()
  return { gateway, page, complaints, requests, panel, figure, subscribed }
}

test("what is published arrives in each panel, with its figures", async (context) => {
  const { gateway, page, complaints, requests, panel, figure, subscribed } = await open(context)
  await subscribed()
  await page.getByLabel("Message").fill("<b>hello</b>")
  await page.getByRole("button", { name: "Publish" }).click()
  for (const name of PANELS) {
    await panel(name).getByText("1: <b>hello</b>", { exact: true }).waitFor()
    await until(async () => (await figure(name, "received")) === "1/1")
    assert.match(await figure(name, "latency"), /^[\d.]+ m?s$/)
    assert.match(await figure(name, "p50"), /^[\d.]+ m?s$/)
    assert(Number(await figure(name, "requests")) >= 1)
    assert.match(await figure(name, "bytes"), /^[\d.]+ kB$/)
    assert.match(await figure(name, "waiting"), /^\d+ %$/)
    assert.match(await panel(name).locator(".dots").getAttribute("d"), /^M/)
  }
  assert.deepEqual(complaints, [])
  // No request to another origin.
  assert.deepEqual([...new Set(requests.map((url) => new URL(url).protocol === "data:" ? gateway.url : new URL(url).origin))], [gateway.url])
})

for (const name of PANELS) {
  test(`a cut of ${name}: messages come late, none is lost or doubled`, async (context) => {
    const { page, panel, figure, subscribed } = await open(context)
    await subscribed()
    await page.getByRole("button", { name: "Publish" }).click()
    await until(async () => (await figure(name, "received")) === "1/1")
    await page.getByRole("button", { name: `Cut for 5 s: ${name}` }).click()
    assert.match(await page.getByRole("status").innerText(), new RegExp(`^${name} is cut for 5 s`))
    await panel(name).getByText("cut", { exact: true }).waitFor()
    // The others go on.
    const other = PANELS.find((other) => other !== name && !["Short poll", "Fallback client"].includes(other))
    await until(async () => (await figure(other, "received")).split("/")[0] >= 4)
    assert.equal((await figure(name, "received")).split("/")[0], "1")
    await page.getByRole("status").getByText(/was cut for 5 s: \d+ messages since, none missing, none duplicated/).waitFor()
    const [received, published] = (await figure(name, "received")).split("/")
    assert(received === published && received >= 4, `${received} of ${published}`)
    assert.equal(await figure(name, "missing"), "0")
    assert.equal(await figure(name, "doubled"), "0")
    assert.match(await panel(name).locator(".gone").getAttribute("d"), /^M/)
  })
}

test("the fallback client takes what its network lets through, and says why", async (context) => {
  const { page, panel } = await open(context)
  const fallback = panel("Fallback client")
  await fallback.locator(".state", { hasText: "websocket" }).waitFor()
  for (const [block, form] of [["WebSocket", "sse"], ["streams (SSE, NDJSON)", "long-poll"], ["long polls", "short-poll"]]) {
    await fallback.getByLabel(block).uncheck()
    await fallback.locator(".state", { hasText: form }).waitFor()
  }
  const [, second] = (await fallback.getByRole("listitem").allInnerTexts()).toReversed()
  assert.match(second, /websocket → sse: not upgraded$/)
  for (const box of await fallback.getByRole("checkbox").all()) await box.check()
  await fallback.locator(".state", { hasText: "websocket" }).waitFor()
  await page.getByRole("button", { name: "Publish" }).click()
  await fallback.getByText("1: hello").waitFor()
})

test("by keyboard alone: publish, switch on, cut; and the focus is visible", async (context) => {
  const { page, figure } = await open(context)
  const focused = () => page.evaluate(() => {
    const { activeElement: at } = document
    const name = at.getAttribute("aria-label") ?? at.labels?.[0]?.textContent.trim() ?? at.textContent
    return { name, outline: getComputedStyle(at).outlineStyle }
  })
  const cuts = PANELS.map((name) => `Cut for 5 s: ${name}`)
  const names = []
  while (names.at(-1) !== cuts.at(-1) && names.length < 40) {
    await page.keyboard.press("Tab")
    const { name, outline } = await focused()
    assert.equal(outline, "solid", name)
    names.push(name)
    if (name === "Message") await page.keyboard.press("Enter")
    if (name === "one every second") await page.keyboard.press("Space")
    if (name === "Cut for 5 s: WebSocket") await page.keyboard.press("Enter")
  }
  assert.deepEqual(names.filter((name) => name.startsWith("Cut ")), ["Cut all for 5 s", ...cuts])
  await until(async () => (await figure("Server-sent events", "received")).split("/")[0] >= 3)
  await page.getByText("WebSocket is cut for 5 s").waitFor()
})

test("each panel has a command that reads the same", { skip: token && "curl speaks MQTT without TLS alone" }, async (context) => {
  // The long poll, which ends without a message after its hold time, waits as long as the test.
  const { gateway, page, panel } = await open(context, {}, () => {}, ["--hold", "60s", "--hold-max", "60s"])
  await page.getByRole("button", { name: "Publish" }).click()
  await until(async () => (await panel("WebSocket").locator(".message").innerText()) === "1: hello")
  await Promise.all(PANELS.map(async (name) => {
    const line = await panel(name).locator(".curl").innerText()
    assert.match(line, /^curl /)
    const here = line.replace(":1883", `:${gateway.mqtt.split(":").pop()}`)
    const reading = spawn("timeout", ["60", "sh", "-c", `exec ${here} -sS`], { stdio: ["ignore", "pipe", "pipe"] })
    context.after(() => reading.kill())
    let [output, hasEnded] = ["", false]
    // It has ended when its output has been read, which may be after its exit.
    reading.on("close", () => (hasEnded = true))
    for (const pipe of [reading.stdout, reading.stderr]) pipe.on("data", (bytes) => (output += bytes))
    // Commands that read from now on get what is published after their start.
    await until(async () => {
      if (output.includes('"text":"hello"')) return true
      await page.getByRole("button", { name: "Publish" }).click()
      await new Promise((wait) => setTimeout(wait, 200))
      assert(!hasEnded || output.includes('"text":"hello"'), `${line}: ${output}`)
    })
  }))
})

test("a page that was opened with a password in its URL works, as for a proxy before the gateway", async (context) => {
  const { gateway, page, complaints, figure, subscribed } = await open(context)
  await page.goto(gateway.url.replace("http://", "http://user:secret@"))
  await subscribed()
  await page.getByRole("button", { name: "Publish" }).click()
  for (const name of PANELS) await until(async () => (await figure(name, "received")) === "1/1")
  assert.equal(await page.getByRole("status").innerText(), "")
  assert.deepEqual(complaints, [])
})

test("a form that receives nothing is not said to be reading", async (context) => {
  const { page, panel } = await open(context, {}, async (page) => {
    // A proxy that buffers event streams, and one that lets no WebSocket through.
    await page.route(/live=sse/, () => {})
    await page.route(/live=ndjson/, (route) => route.abort())
    await page.routeWebSocket(/mqtt/, () => {})
  })
  const state = (name) => panel(name).locator(".state").innerText()
  // Shown from the beginning; after a while without a response, the gateway counts as not reached.
  assert.match(await state("MQTT over WebSocket"), /^(connecting|not reached)$/)
  await page.getByLabel("one every second").check()
  for (const name of ["Long poll", "WebSocket"]) await until(async () => (await state(name)) === "reading")
  for (const name of ["Server-sent events", "NDJSON"]) {
    await until(async () => ["nothing arrives", "not reached"].includes(await state(name)))
  }
  assert.match(await state("MQTT over WebSocket"), /^(connecting|nothing arrives|not reached)$/)
})

test("on a phone the fallback client comes first, and no figures run into each other on any screen", async (context) => {
  for (const width of [1280, 1000, 700, 390, 320]) {
    const { page } = await open(context, { viewport: { width, height: 844 } })
    const overlapping = await page.evaluate(() => {
      const long = { latency: "59.9 s", p50: "59.9 s", requests: "12345", bytes: "999.9 MB", waiting: "100 %", received: "12345/12345", missing: "1234", doubled: "1234" }
      for (const [name, text] of Object.entries(long)) for (const figure of document.querySelectorAll(`.${name}`)) figure.textContent = text
      const inked = (element) => {
        const range = document.createRange()
        range.selectNodeContents(element)
        return range.getBoundingClientRect()
      }
      return [...document.querySelectorAll("dl")].flatMap((list) => {
        const figures = [...list.querySelectorAll("dt, dd")].map((element) => ({ element, box: inked(element) }))
        return figures.flatMap(({ element, box }, at) => figures.slice(at + 1)
          .filter(({ box: other }) => box.left < other.right + 4 && other.left < box.right + 4 && box.top < other.bottom - 2 && other.top < box.bottom - 2)
          .map(({ element: other }) => `${element.textContent} and ${other.textContent}`))
      })
    })
    assert.deepEqual(overlapping, [], `${width} pixels`)
    const tops = await page.locator(".panel").evaluateAll((panels) => panels.map((panel) => panel.getBoundingClientRect().top))
    const [first] = await page.locator(".panel h2").allInnerTexts()
    assert.equal(first, "Fallback client")
    assert.equal(Math.min(...tops), tops[0])
  }
})

for (const colorScheme of ["light", "dark"]) {
  for (const width of [1280, 360]) {
    test(`nothing is cut off and axe finds nothing on a ${colorScheme} screen ${width} pixels wide`, async (context) => {
      const { page, figure, complaints } = await open(context, { colorScheme, viewport: { width, height: 800 } })
      await page.getByLabel("one every second").check()
      for (const name of PANELS) await until(async () => (await figure(name, "received")).split("/")[0] >= 2)
      const beyond = await page.evaluate(() => [...document.querySelectorAll("body *")].filter((element) => {
        const { right } = element.getBoundingClientRect()
        return right > document.documentElement.clientWidth && !element.closest("svg, .visually-hidden, .curl")
      }).map((element) => element.outerHTML.slice(0, 80)))
      assert.deepEqual(beyond, [])
      assert.deepEqual(await violations(page), [])
      const background = await page.evaluate(() => getComputedStyle(document.body).backgroundColor)
      const [red] = background.match(/\d+/)
      assert.equal(red > 128, colorScheme === "light", background)
      assert.deepEqual(complaints, [])
    })
  }
}

test("files have their types, tags and policies; HEAD and 304 work", async (context) => {
  const { gateway } = await world(context)
  for (const [path, type] of [
    ["/", "text/html; charset=utf-8"],
    ["/page.js", "text/javascript; charset=utf-8"],
    ["/mqtt.js", "text/javascript; charset=utf-8"],
    ["/page.css", "text/css; charset=utf-8"],
    ["/pollgate.js", "text/javascript; charset=utf-8"],
    ["/pollgate.d.ts", "application/typescript; charset=utf-8"],
  ]) {
    const answer = await fetch(gateway.url + path)
    const fields = ({ headers }) =>
      ["content-type", "cache-control", "x-content-type-options", "cross-origin-resource-policy"].map((name) => headers.get(name))
    assert.deepEqual(fields(answer), [type, "no-cache", "nosniff", "same-origin"])
    assert.equal(answer.headers.get("content-security-policy")?.includes("connect-src 'self'"), path === "/" || undefined)
    const length = (await answer.arrayBuffer()).byteLength
    const tag = answer.headers.get("etag")
    const head = await fetch(gateway.url + path, { method: "HEAD" })
    assert.deepEqual([head.status, head.headers.get("content-length"), head.headers.get("etag")], [200, `${length}`, tag])
    const known = await fetch(gateway.url + path, { headers: { "if-none-match": tag } })
    assert.deepEqual([known.status, await known.text()], [304, ""])
    const posted = await fetch(gateway.url + path, { method: "POST", body: "x" })
    assert.deepEqual([posted.status, posted.headers.get("allow")], [405, "GET, HEAD, OPTIONS"])
  }
})
