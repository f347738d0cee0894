// The JavaScript client in Chromium: by WebSocket through faulty networks, and in tabs that share a connection.
import assert from "node:assert/strict"
import { after, before, test } from "node:test"
import { chromium } from "playwright-core"
import { token } from "../conformance/credentials.js"
import { answerOf } from "../mqtt-clients/relay.js"
import { startBrowser } from "./chromium.js"
import { append, keepAppending, numbers, QUICK, until, world } from "./world.js"

let browser
let close

before(async () => ({ browser, close } = await startBrowser(chromium)))
after(() => close?.())

// A separate window, whose tabs connect to the relay.
async function window(context, relay) {
  const tabs = await browser.newContext()
  context.after(() => tabs.close())
  return async (streams, where = {}, options = {}) => {
    const page = await tabs.newPage()
    // A file of the gateway, which is an empty page.
    await page.goto(`${relay.url}/page.css`)
    await page.evaluate(subscribe, { streams, where, options: { token, ...options, settings: { ...QUICK, ...options.settings } } })
    const read = (what) => page.evaluate((what) => globalThis.reading[what], what)
    return {
      page,
      got: () => read("got"),
      changes: () => read("changes"),
      resumeToken: () => page.evaluate(() => globalThis.subscription.resumeToken),
      publish: (stream, data) =>
        page.evaluate(([stream, data]) => globalThis.client.publish(stream, data, { create: true }), [stream, data]),
    }
  }
}

// Runs in a page.
async function subscribe({ streams, where, options }) {
  const { Client } = await import("/pollgate.js")
  const reading = (globalThis.reading = { got: [], changes: [] })
  globalThis.client = new Client(location.origin, options)
  globalThis.client.addEventListener("form", ({ detail: { from, to, reason } }) => reading.changes.push(`${from} ${to} ${reason}`))
  globalThis.subscription = globalThis.client.subscribe(streams, where, ({ stream, data }) => void reading.got.push(`${stream} ${data}`))
}

const live = (relay) => relay.requests.filter((request) => request.includes("live="))
const polls = (relay) => relay.requests.filter((request) => request.includes("/v1/streams") && !request.includes("live="))
const arrives = (tab, count) => until(async () => (await tab.got()).length >= count)

test("every form alone, in a browser", async (context) => {
  const { relay } = await world(context)
  const open = await window(context, relay)
  for (const form of ["websocket", "sse", "ndjson", "long-poll", "short-poll"]) {
    const tab = await open(["a", form], { from: "earliest" }, { forms: [form], share: false })
    for (const n of numbers(20)) await tab.publish(form, n)
    await arrives(tab, 20)
    assert.deepEqual(await tab.got(), numbers(20).map((n) => `${form} ${n}`))
    assert.deepEqual(await tab.changes(), [`null ${form} start`])
    await tab.page.close()
  }
})

test("many streams by WebSocket: more than a target holds", async (context) => {
  const { gateway, relay } = await world(context)
  const open = await window(context, relay)
  const tab = await open(numbers(500).map((n) => `stream-${n}`), {}, { forms: ["websocket"] })
  await until(() => tab.resumeToken())
  for (const n of [0, 250, 499]) await append(gateway, `stream-${n}`, n)
  await arrives(tab, 3)
  assert.deepEqual(await tab.got(), ["stream-0 0", "stream-250 250", "stream-499 499"])
})

test("where no WebSocket gets through, streams do, and nothing is lost", async (context) => {
  const rule = (_, target) => (target.includes("live=websocket") ? { answer: answerOf(400, []) } : {})
  const { relay } = await world(context, { rule })
  const open = await window(context, relay)
  const tab = await open(["s"], { from: "earliest" })
  for (const n of numbers(30)) await tab.publish("s", n)
  await arrives(tab, 30)
  assert.deepEqual(await tab.got(), numbers(30).map((n) => `s ${n}`))
  assert.deepEqual(await tab.changes(), ["null websocket start", "websocket sse not_upgraded"])
})

test("a WebSocket that is cut soon after it works is given up at the third time, and found again when the network heals", async (context) => {
  const { gateway, relay } = await world(context)
  const open = await window(context, relay)
  // On a busy machine, too, the cut is too early.
  const tab = await open(["s"], { from: "earliest" }, { settings: { stableAfter: 60 } })
  const appending = keepAppending(gateway, () => "s", 50)
  for (const opened of [1, 2, 3]) {
    await until(() => live(relay).length === opened)
    await arrives(tab, (await tab.got()).length + 1)
    relay.cut()
  }
  await until(async () => (await tab.changes()).length > 1)
  // The event of the change may precede its request.
  await until(() => live(relay).some((request) => request.includes("sse")))
  assert.equal(live(relay).findIndex((request) => request.includes("sse")), 3)
  await until(async () => (await tab.changes()).length > 2)
  const n = await appending.stop()
  await arrives(tab, n)
  assert.deepEqual(await tab.got(), numbers(n).map((n) => `s ${n}`))
  assert.deepEqual(await tab.changes(), ["null websocket start", "websocket sse cut", "sse websocket better"])
})

test("tabs share one connection, each gets what it asked for once, and another takes over", async (context) => {
  const { gateway, relay } = await world(context)
  const open = await window(context, relay)
  const tabs = []
  for (const streams of [["s", "a"], ["s", "b"], ["s"]]) {
    tabs.push(await open(streams, {}, { forms: ["sse"] }))
    await until(() => tabs.at(-1).resumeToken())
  }
  // One connection for each new union of streams.
  await until(() => live(relay).length === 2)
  const appending = keepAppending(gateway, () => "s", 25)
  await append(gateway, "a", "for the first")
  await append(gateway, "b", "for the second")
  await arrives(tabs[2], 20)
  const begun = polls(relay).length
  // The tab that reads is closed; the second one takes over, and is closed, too.
  for (const tab of tabs.slice(0, 2)) {
    await tab.page.close()
    await arrives(tabs[2], appending.soFar() + 20)
  }
  const n = await appending.stop()
  await arrives(tabs[2], n)
  assert.deepEqual(await tabs[2].got(), numbers(n).map((n) => `s ${n}`))
  // After its start no tab has sent requests of its own.
  assert.deepEqual([live(relay).length, polls(relay).length], [4, begun])
})

test("tabs that remain have each message once, regardless of which one reads", async (context) => {
  const { gateway, relay } = await world(context)
  const open = await window(context, relay)
  const tabs = []
  for (const _ of numbers(4)) tabs.push(await open(["s", "t"]))
  for (const tab of tabs) await until(() => tab.resumeToken())
  const appending = keepAppending(gateway, (n) => (n % 2 ? "s" : "t"), 10)
  await arrives(tabs[3], 20)
  await tabs[0].page.close()
  await arrives(tabs[3], appending.soFar() + 20)
  const n = await appending.stop()
  for (const tab of tabs.slice(1)) {
    await arrives(tab, n)
    for (const [stream, rest] of [["s", 1], ["t", 0]]) {
      const expected = numbers(n).filter((n) => n % 2 === rest).map((n) => `${stream} ${n}`)
      assert.deepEqual((await tab.got()).filter((one) => one.startsWith(stream)), expected)
    }
  }
})

test("envelopes that come again, as when two tabs have read the same at a take-over, are known by their offsets", async (context) => {
  const { gateway, relay } = await world(context)
  const open = await window(context, relay)
  const [leader, follower] = [await open(["s"]), await open(["s"])]
  for (const tab of [leader, follower]) await until(() => tab.resumeToken())
  await leader.page.evaluate(() => {
    globalThis.overheard = []
    const channel = new BroadcastChannel(`pollgate ${location.origin}/ `)
    channel.onmessage = ({ data }) => data.batches?.length && globalThis.overheard.push(data)
    globalThis.repeat = () => globalThis.overheard.splice(0).forEach((message) => channel.postMessage(message))
  })
  for (const n of numbers(5)) await append(gateway, "s", n)
  await arrives(follower, 5)
  await leader.page.evaluate(() => globalThis.repeat())
  for (const n of [5, 6]) await append(gateway, "s", n)
  await arrives(follower, 7)
  assert.deepEqual(await follower.got(), numbers(7).map((n) => `s ${n}`))
})

test("a tab that joins late with a resume token of its own catches up and joins in, while messages come", async (context) => {
  const { gateway, relay } = await world(context)
  const open = await window(context, relay)
  for (const stream of ["s", "t", "idle"]) await append(gateway, stream, "first")
  const first = await open(["s", "t", "idle"], { from: "earliest" })
  await arrives(first, 3)
  const resumeToken = await first.resumeToken()
  const appending = keepAppending(gateway, (n) => (n % 2 ? "s" : "t"), 10)
  await arrives(first, 40)
  const late = await open(["s", "t", "idle"], { resumeToken })
  await until(async () => polls(relay).length && (await late.got()).length > 60)
  const [asked, opened] = [polls(relay).length, live(relay).length]
  await arrives(late, appending.soFar() + 60)
  const n = await appending.stop()
  await arrives(late, n)
  await append(gateway, "idle", "last")
  await arrives(late, n + 1)
  for (const [stream, rest] of [["s", 1], ["t", 0]]) {
    const expected = numbers(n).filter((n) => n % 2 === rest).map((n) => `${stream} ${n}`)
    assert.deepEqual((await late.got()).filter((one) => one.startsWith(`${stream} `)), expected)
  }
  assert.deepEqual((await late.got()).filter((one) => one.startsWith("idle")), ["idle last"])
  // It sends no requests once it has reached the shared position; for the idle stream, that is its first message.
  assert(polls(relay).length - asked <= 4, `${asked} of ${polls(relay).length}`)
  assert.equal(live(relay).length, opened)
  // Another reader can resume from its resume token.
  const other = await browser.newContext()
  context.after(() => other.close())
  const after = await (await window(context, relay))(["s", "t", "idle"], { resumeToken: await late.resumeToken() })
  await append(gateway, "t", "next")
  await arrives(after, 1)
  assert.deepEqual(await after.got(), ["t next"])
})

test("eight tabs: each reads, publishes and fetches, though a browser has six connections", async (context) => {
  const { relay } = await world(context)
  const open = await window(context, relay)
  const tabs = []
  for (const n of numbers(8)) tabs.push(await open(["all", `tab-${n}`], {}, { forms: ["sse"] }))
  for (const tab of tabs) await until(() => tab.resumeToken())
  await Promise.all(tabs.map((tab, n) => tab.publish("all", n)))
  for (const tab of tabs) {
    await arrives(tab, 8)
    assert.equal(await tab.page.evaluate(() => fetch("/page.css").then(({ status }) => status)), 200)
    assert.deepEqual((await tab.got()).toSorted(), numbers(8).map((n) => `all ${n}`))
  }
})

test("eight tabs that do not share are too many: the control", async (context) => {
  const { relay } = await world(context)
  const open = await window(context, relay)
  const tabs = []
  for (const _ of numbers(6)) {
    tabs.push(await open(["all"], {}, { forms: ["sse"], share: false, settings: { envelopeTimeout: 60 } }))
    await until(() => live(relay).length === tabs.length)
  }
  const [tab] = tabs
  const fetched = tab.page.evaluate(() => {
    const late = new Promise((resolve) => setTimeout(resolve, 1000, "no connection was left"))
    return Promise.race([fetch("/v1/stream/none").then(({ status }) => status), late])
  })
  const outcome = await fetched
  assert(outcome === "no connection was left", `${outcome} after ${relay.requests.join(", ")}`)
})

test("401 for the tab that reads ends the subscriptions of all tabs; each can subscribe again", async (context) => {
  const { gateway, relay } = await world(context)
  const open = await window(context, relay)
  const tabs = [await open(["s"]), await open(["s"])]
  for (const tab of tabs) await until(() => tab.resumeToken())
  await append(gateway, "s", 0)
  for (const tab of tabs) await arrives(tab, 1)
  relay.rule = () => ({ answer: answerOf(401, ["content-type: text/plain"], "no") })
  relay.cut()
  const end = (tab) => tab.page.evaluate(() => globalThis.subscription.closed.catch(({ name, status }) => `${name} ${status}`))
  for (const tab of tabs) assert.equal(await end(tab), "GatewayError 401")
  relay.rule = () => ({})
  for (const tab of tabs.toReversed()) {
    await tab.page.evaluate(() => {
      const { resumeToken } = globalThis.subscription
      const handler = ({ stream, data }) => void globalThis.reading.got.push(`${stream} ${data}`)
      globalThis.subscription = globalThis.client.subscribe("s", { resumeToken }, handler)
    })
    await append(gateway, "s", 1)
  }
  for (const tab of tabs) {
    await arrives(tab, 3)
    await append(gateway, "s", 2)
  }
  for (const tab of tabs) {
    await arrives(tab, 5)
    assert.deepEqual(await tab.got(), [0, 1, 1, 2, 2].map((n) => `s ${n}`))
  }
})

test("what a page has learned of its network is there for the next one", async (context) => {
  const { relay } = await world(context, { rule: (_, target) => (target.includes("live=websocket") ? { answer: answerOf(403, []) } : {}) })
  const open = await window(context, relay)
  const first = await open(["s"], {}, { share: false })
  await until(async () => (await first.changes()).length === 2)
  assert.deepEqual((await first.changes()).map((change) => change.split(" ")[1]), ["websocket", "sse"])
  await until(() => first.page.evaluate(() => Object.values(localStorage).some((text) => text.includes('"form":"sse"'))))
  await first.page.close()
  const second = await open(["s"], {}, { share: false })
  await until(async () => (await second.changes()).length)
  assert.deepEqual(await second.changes(), ["null sse start"])
})
