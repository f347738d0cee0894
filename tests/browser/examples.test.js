// The pages of examples/ in Chromium. That of push-to-wake is in tests/wake-ups, the other examples are in tests/docs.
import assert from "node:assert/strict"
import { once } from "node:events"
import { mkdtempSync, rmSync } from "node:fs"
import { createServer } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, test } from "node:test"
import { chromium } from "playwright-core"
import { start } from "../conformance/gateway.js"
import { violations } from "./axe.js"
import { startBrowser } from "./chromium.js"
import { serveExample } from "./example.js"
import { middlebox } from "./middlebox.js"
import { numbers, until } from "./world.js"

let browser
let close

before(async () => ({ browser, close } = await startBrowser(chromium)))
after(() => close?.())

// The page of an example in a profile of its own, with its errors.
async function open(context, example, colorScheme) {
  const profile = await browser.newContext({ colorScheme })
  context.after(() => profile.close())
  const page = await profile.newPage()
  const complaints = []
  page.on("pageerror", (error) => complaints.push(String(error)))
  await page.goto(example.origin)
  return { page, complaints }
}

// Somebody who chats behind a hostile network.
async function chatter(context, { example, gateway, network, author, colorScheme }) {
  const way = await middlebox(context, network, gateway.address)
  example.gateway = way.url
  const { page, complaints } = await open(context, example, colorScheme)
  await page.getByLabel("Name").fill(author)
  const say = async (text) => {
    await page.getByLabel("Message", { exact: true }).fill(text)
    await page.keyboard.press("Enter")
  }
  const read = () => page.getByRole("listitem").allInnerTexts()
  const state = () => page.getByRole("status").innerText()
  return { page, complaints, author, say, read, state }
}

test("two browsers chat behind hostile networks, over a crash of the gateway: each message arrives once, in the same order", async (context) => {
  const examples = await Promise.all([serveExample(context, "chat"), serveExample(context, "chat")])
  const folder = mkdtempSync(join(tmpdir(), "chat-"))
  const settings = ["--store", folder, ...examples.flatMap(({ origin }) => ["--origin", origin])]
  let gateway = await start("127.0.0.1:0", settings)
  context.after(async () => {
    await gateway.stop()
    rmSync(folder, { recursive: true })
  })
  const [ann, bob] = await Promise.all([
    chatter(context, { example: examples[0], gateway, network: "websocket-cut", author: "ann", colorScheme: "light" }),
    chatter(context, { example: examples[1], gateway, network: "proxy-buffer", author: "bob", colorScheme: "dark" }),
  ])
  const both = [ann, bob]
  // The networks are felt: a WebSocket that ends, and responses that are held back.
  await ann.say("<b>hello</b>")
  await until(async () => (await ann.state()) === "reads by sse" && (await bob.state()) === "reads by long-poll")
  for (const n of numbers(10)) await Promise.all(both.map(({ say }) => say(`${n}`)))
  const pages = async () => JSON.stringify(await Promise.all(both.map(async ({ state, read }) => [await state(), ...(await read())])))
  const allIsRead = async () => (await Promise.all(both.map(({ read }) => read()))).every((texts) => texts.length >= 21)
  await until(allIsRead, 60_000, pages)

  await gateway.stop()
  await until(async () => (await Promise.all(both.map(({ state }) => state()))).every((text) => text.startsWith("the gateway is away")))
  // It waits in the page. What comes twice comes before it.
  await bob.say("goodbye")
  gateway = await start(gateway.address, settings)
  for (const { read } of both) await until(async () => (await read()).includes("bob: goodbye"))
  for (const { state } of both) assert.match(await state(), /^reads by/)

  const [seen, seenByBob] = await Promise.all(both.map(({ read }) => read()))
  assert.deepEqual(seenByBob, seen)
  const from = (author) => seen.filter((text) => text.startsWith(`${author}: `)).map((text) => text.slice(author.length + 2))
  assert.deepEqual(from("ann"), ["<b>hello</b>", ...numbers(10).map(String)])
  assert.deepEqual(from("bob"), [...numbers(10).map(String), "goodbye"])
  for (const { page, complaints } of both) {
    assert.deepEqual(await violations(page), [])
    assert.deepEqual(complaints, [])
  }
})

test("the dashboard shows what an API returns, and each change, in all windows", async (context) => {
  let bikes = 4
  const api = createServer((_, response) => {
    response.setHeader("content-type", "application/json").end(JSON.stringify({ stations: [{ name: "<i>north</i>", bikes }] }))
  }).listen(0, "127.0.0.1")
  await once(api, "listening")
  const example = await serveExample(context, "dashboard")
  const gateway = await start("127.0.0.1:0", ["--poll-origins", "--origin", example.origin])
  context.after(() => {
    api.close()
    api.closeAllConnections()
    return gateway.stop()
  })
  example.gateway = gateway.url
  const headers = {
    "content-type": "application/json", "stream-origin": `http://127.0.0.1:${api.address().port}/`, "stream-origin-interval": "1",
    "stream-max-messages": "10",
  }
  assert.equal((await fetch(`${gateway.url}/v1/stream/stations`, { method: "PUT", headers })).status, 201)
  const windows = [await open(context, example, "light"), await open(context, example, "dark")]
  const shown = async (text) => {
    for (const { page } of windows) await page.getByRole("row", { name: `<i>north</i> ${text}` }).waitFor()
  }
  await shown("4")
  bikes = 3
  await shown("3")
  for (const { page, complaints } of windows) {
    assert.match(await page.getByRole("status").innerText(), /^as of \d/)
    assert.deepEqual(await violations(page), [])
    assert.deepEqual(complaints, [])
  }
})
