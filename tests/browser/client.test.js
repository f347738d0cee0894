// The JavaScript client in Node, with the gateway and behind faulty networks.
import assert from "node:assert/strict"
import { execFile } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import { promisify } from "node:util"
import { Client, GatewayError } from "../../clients/js/src/pollgate.js"
import { token } from "../conformance/credentials.js"
import { start } from "../conformance/gateway.js"
import { answerOf } from "../mqtt-clients/relay.js"
import { stopwatch } from "../mqtt-clients/stopwatch.js"
import { append, keepAppending, numbers, QUICK, until, world } from "./world.js"

const FORMS = ["sse", "ndjson", "long-poll", "short-poll"]

// For scenarios in which each form works, and is told from one that does not, however slow the machine is.
const PATIENT = { envelopeTimeout: 60 }

// A client, its events, and the messages that its handler got.
function reader(context, url, options = {}) {
  const client = new Client(url, { WebSocket: undefined, token, ...options, settings: { ...QUICK, ...options.settings } })
  context.after(() => client.close())
  const [events, got] = [[], []]
  for (const name of ["form", "gap", "missing", "closed", "restart", "not_gateway"]) {
    client.addEventListener(name, ({ detail: { subscription, ...detail } }) => events.push({ name, ...detail }))
  }
  const subscribe = (streams, options) => client.subscribe(streams, options, ({ data }) => void got.push(data))
  const changes = () => events.filter(({ name }) => name === "form").map(({ from, to, reason }) => `${from} ${to} ${reason}`)
  return { client, events, got, subscribe, changes }
}

for (const form of FORMS) {
  test(`${form} alone: all streams, each message once, in order, from one client to the next by the resume token`, async (context) => {
    const { gateway } = await world(context)
    const first = reader(context, gateway.url, { forms: [form] })
    const subscription = first.subscribe(["a", "b/c d", "ü"], { from: "earliest" })
    const publish = (client, n) => client.publish(["a", "b/c d", "ü"][n % 3], n, { create: true })
    await Promise.all(numbers(60).map((n) => publish(first.client, n)))
    await until(() => first.got.length >= 60)
    for (const rest of [0, 1, 2]) {
      assert.deepEqual(first.got.filter((n) => n % 3 === rest), numbers(60).filter((n) => n % 3 === rest))
    }
    // Another client takes over while messages are published.
    const left = Promise.all(numbers(60).map((n) => publish(first.client, 60 + n)))
    await until(() => first.got.length > 60)
    subscription.close()
    const second = reader(context, gateway.url, { forms: [form] })
    second.subscribe(["a", "b/c d", "ü"], { resumeToken: subscription.resumeToken })
    await left
    await until(() => first.got.length + second.got.length >= 120)
    assert.deepEqual([...first.got, ...second.got].toSorted((one, other) => one - other), numbers(120))
    assert.deepEqual(first.changes(), [`null ${form} start`])
  })
}

test("a subscription without a resume token begins now", async (context) => {
  const { gateway } = await world(context)
  await append(gateway, "s", "old")
  for (const form of FORMS) {
    const { got, subscribe } = reader(context, gateway.url, { forms: [form] })
    const subscription = subscribe("s")
    await until(() => subscription.resumeToken)
    await append(gateway, "s", form)
    await until(() => got.length)
    assert.deepEqual(got, [form])
  }
})

test("values, texts and bytes keep their types", async (context) => {
  const { gateway } = await world(context)
  const { client, got, subscribe } = reader(context, gateway.url, { forms: ["sse"] })
  subscribe(["json", "text", "bytes"], { from: "earliest" })
  await client.publish("json", [1, { deep: null }], { create: true })
  await client.publish("text", "a\nb ü", { create: true, contentType: "text/plain" })
  await client.publish("bytes", new Uint8Array([0, 255, 10]), { create: true, contentType: "application/octet-stream" })
  await until(() => got.length === 3)
  for (const expected of [[1, { deep: null }], "a\nb ü", new Uint8Array([0, 255, 10])]) {
    assert(got.some((one) => { try { assert.deepEqual(one, expected); return true } catch { return false } }), `${got}`)
  }
})

test("300 streams are requested by POST; two subscriptions of a client share one connection", async (context) => {
  const { gateway, relay } = await world(context)
  const { got, subscribe } = reader(context, relay.url, { forms: ["sse"] })
  const streams = numbers(300).map((n) => `stream-${n}`)
  const first = subscribe(streams)
  await until(() => first.resumeToken)
  const second = subscribe(["stream-7", "more"])
  await until(() => second.resumeToken)
  // A poll and a shared connection. The polls of the second subscription fit into a URL, the shared request does not.
  await until(() => relay.requests.filter((request) => request === "POST /v1/streams").length === 3)
  assert(relay.requests.every((request) => !request.includes("live=")), `${relay.requests}`)
  for (const stream of ["stream-0", "stream-7", "more"]) await append(gateway, stream, stream)
  await until(() => got.length === 4)
  assert.deepEqual(got.toSorted(), ["more", "stream-0", "stream-7", "stream-7"])
})

test("a network that blocks streams: the first message arrives in time, and the client stays with long polls", async (context) => {
  const swallow = (_, target) => (/live=(sse|ndjson)/.test(target) ? { pieces: 0 } : {})
  const { gateway, relay } = await world(context, { rule: swallow })
  const { got, subscribe, changes } = reader(context, relay.url, { settings: { reprobeAfter: 60 } })
  await append(gateway, "s", 0)
  const began = stopwatch()
  const subscription = subscribe("s")
  await until(() => subscription.resumeToken)
  // One poll, as soon as the first form has delivered nothing.
  assert(began.own() < 1000 * QUICK.envelopeTimeout + 500)
  for (const n of numbers(50)) await append(gateway, "s", n)
  await until(() => got.length >= 50)
  assert.deepEqual(got, numbers(50))
  await until(() => changes().length === 3)
  assert.deepEqual(changes(), ["websocket sse not_supported", "sse ndjson no_envelope", "ndjson long-poll no_envelope"])
})

const recordsDiffer = token && "TLS records are other pieces than those that it counts"

test("a stream that goes silent is given up, or tried again if it had worked, and nothing is lost", { skip: recordsDiffer }, async (context) => {
  const { gateway, relay } = await world(context)
  // The first stream goes silent after its first envelope, the second one a little later.
  const pieces = [1, 4]
  relay.rule = (_, target) => (target.includes("live=sse") ? { pieces: pieces.shift() } : {})
  const { got, subscribe, changes } = reader(context, relay.url, { forms: ["sse", "short-poll"], settings: PATIENT })
  subscribe("s", { from: "earliest" })
  const appending = keepAppending(gateway, () => "s", 100)
  await until(() => relay.requests.filter((request) => request.includes("live=sse")).length === 3)
  const n = await appending.stop()
  await until(() => got.length >= n)
  assert.deepEqual(got, numbers(n))
  assert.deepEqual(changes(), ["null sse start", "sse short-poll mute", "short-poll sse better"])
})

test("a proxy that cuts long polls: one error, then shorter ones", async (context) => {
  const proxy = (_, target) => (target.includes("timeout=2") ? { pieces: 0, cut: 1500 } : {})
  const { gateway, relay } = await world(context, { rule: proxy })
  const { client, got, subscribe } = reader(context, relay.url, { forms: ["long-poll", "short-poll"] })
  const subscription = subscribe("s", { from: "earliest" })
  await until(() => client.memory().networks[0]?.holdProven)
  for (const n of numbers(20)) await append(gateway, "s", n)
  await until(() => got.length >= 20)
  assert.deepEqual(got, numbers(20))
  assert.equal(relay.requests.filter((request) => request.includes("timeout=2")).length, 1)
  assert.deepEqual(client.memory().networks, [{ label: "", form: "long-poll", hold: 1, holdProven: 1 }])
  subscription.close()
})

test("a relay that cuts everything every 300 ms: nothing is lost or doubled in any form", async (context) => {
  for (const form of FORMS) {
    const { gateway, relay } = await world(context)
    const { got, subscribe } = reader(context, relay.url, { forms: [form] })
    subscribe("s", { from: "earliest" })
    const cutting = setInterval(() => relay.cut(), 300)
    for (const n of numbers(300)) await append(gateway, "s", n)
    await until(() => got.length >= 300)
    clearInterval(cutting)
    assert.deepEqual(got, numbers(300), form)
  }
})

test("503 with Retry-After is waited for, and the form stays", async (context) => {
  let refusals = 2
  const busy = () => (refusals-- > 0 ? { answer: answerOf(503, ["retry-after: 1"]) } : {})
  const { gateway, relay } = await world(context, { rule: busy })
  const { events, got, subscribe, changes } = reader(context, relay.url, { settings: PATIENT })
  const began = performance.now()
  const subscription = subscribe("s")
  await until(() => subscription.resumeToken)
  assert(performance.now() - began >= 1900)
  await append(gateway, "s", 1)
  await until(() => got.length)
  assert.deepEqual(events.filter(({ name }) => name === "restart").map(({ wait }) => wait), [1, 1])
  assert.deepEqual(changes(), ["websocket sse not_supported"])
})

test("a WebSocket that is closed with 1012 is opened again", async (context) => {
  const { gateway } = await world(context)
  let opened = 0
  class Restarting {
    constructor() {
      if (++opened < 3) setTimeout(() => this.onclose?.({ code: 1012 }))
    }
    close() {}
  }
  const { events, subscribe, changes } = reader(context, gateway.url, { WebSocket: Restarting })
  subscribe("s")
  await until(() => opened === 3)
  assert.deepEqual(changes(), ["null websocket start"])
  assert.equal(events.filter(({ name }) => name === "restart").length, 2)
})

test("behind a captive portal the client waits, blames no form, and continues afterwards", async (context) => {
  const login = answerOf(200, ["content-type: text/html"], "<h1>Welcome</h1>")
  const { gateway, relay } = await world(context, { rule: () => ({ answer: login }) })
  const { events, got, subscribe, changes } = reader(context, relay.url, { settings: PATIENT })
  await append(gateway, "s", 1)
  subscribe("s", { from: "earliest" })
  await until(() => events.filter(({ name }) => name === "not_gateway").length > 2)
  relay.rule = () => ({})
  await until(() => got.length)
  assert.deepEqual([got, changes()], [[1], ["websocket sse not_supported"]])
})

test("a gateway that is killed and started again, on its disk: nothing is lost, doubled, or blamed on the form", async (context) => {
  const folder = mkdtempSync(join(tmpdir(), "client-"))
  let gateway = await start("127.0.0.1:0", ["--store", folder])
  context.after(async () => {
    await gateway.stop()
    rmSync(folder, { recursive: true })
  })
  const { client, got, subscribe, changes } = reader(context, gateway.url, { settings: PATIENT })
  subscribe("s", { from: "earliest" })
  let sent = 0
  const publishing = (async () => {
    while (sent < 300) await client.publish("s", sent++, { create: true })
  })()
  for (const at of [100, 200]) {
    await until(() => got.length >= at)
    await gateway.stop()
    gateway = await start(gateway.address, ["--store", folder])
  }
  await publishing
  await until(() => got.length >= 300)
  assert.deepEqual(got, numbers(300))
  assert.deepEqual(changes(), ["websocket sse not_supported"])
})

test("the resume token moves when the handler's promise has resolved, and stays if it rejects", async (context) => {
  const { gateway } = await world(context)
  await append(gateway, "s", 1, 2)
  const { client } = reader(context, gateway.url, { forms: ["sse"] })
  let release
  const handled = []
  const subscription = client.subscribe("s", { from: "earliest" }, ({ data }) => {
    handled.push(data)
    return new Promise((resolve, reject) => (release = { resolve, reject }))
  })
  await until(() => handled.length === 1)
  assert.equal(subscription.resumeToken, "")
  release.resolve()
  await until(() => handled.length === 2)
  assert.equal(subscription.resumeToken, "")
  release.resolve()
  const resumeToken = await until(() => subscription.resumeToken)
  await append(gateway, "s", 3)
  await until(() => handled.length === 3)
  assert.equal(subscription.resumeToken, resumeToken)
  release.reject(new Error("no room"))
  await assert.rejects(subscription.closed, /no room/)
  assert.equal(subscription.resumeToken, resumeToken)
  const { got, subscribe } = reader(context, gateway.url)
  subscribe("s", { resumeToken })
  await until(() => got.length)
  assert.deepEqual(got, [3])
})

test("a slow handler gets all of a long backlog, and what comes meanwhile, once and in order", async (context) => {
  const { gateway } = await world(context)
  const { client } = reader(context, gateway.url, { forms: ["sse"], settings: { queueMax: 5 } })
  const got = []
  const subscription = client.subscribe("s", {}, async ({ data }) => {
    await new Promise((wait) => setTimeout(wait, 3))
    got.push(data)
  })
  await until(() => subscription.resumeToken)
  for (const n of numbers(300)) await append(gateway, "s", n)
  await until(() => got.length >= 300)
  assert.deepEqual(got, numbers(300))
  await append(gateway, "s", 300)
  await until(() => got.length > 300)
  assert.deepEqual(got, numbers(301))
})

test("by iteration, the resume token moves when the next message is asked for", async (context) => {
  const { gateway } = await world(context)
  await append(gateway, "s", 0)
  await append(gateway, "s", 1)
  const { client } = reader(context, gateway.url)
  const subscription = client.subscribe("s", { from: "earliest" })
  const got = []
  for await (const { data } of subscription) {
    got.push(data)
    if (data === 1) assert.equal(subscription.resumeToken, "")
    if (data < 2) await append(gateway, "s", data + 2)
    if (data === 3) break
  }
  assert.deepEqual(got, numbers(4))
  assert.notEqual(subscription.resumeToken, "")
  await subscription.closed
})

test("events tell what a reader misses: trimmed messages, a missing stream, a closed one", async (context) => {
  const { gateway } = await world(context)
  const url = `${gateway.url}/v1/stream/s`
  const headers = { "content-type": "application/json", "stream-max-messages": "2" }
  await fetch(url, { method: "PUT", headers })
  const first = reader(context, gateway.url)
  const subscription = first.subscribe(["s", "later"], { from: "earliest" })
  await until(() => first.events.some(({ name }) => name === "missing"))
  const { resumeToken } = subscription
  subscription.close()
  await append(gateway, "s", 1, 2, 3, 4, 5)
  const second = reader(context, gateway.url)
  second.subscribe(["s", "later"], { resumeToken })
  await append(gateway, "later", "here")
  await until(() => second.got.length === 3)
  assert.deepEqual(second.got.filter((data) => data !== "here"), [4, 5])
  assert.deepEqual(second.events.filter(({ name }) => name === "gap"), [{ name: "gap", stream: "s", gap: "reason=trimmed; missed=3" }])
  await fetch(url, { method: "POST", headers: { ...headers, "stream-closed": "true" }, body: "6" })
  await until(() => second.events.some(({ name, stream }) => name === "closed" && stream === "s"))
  assert(second.got.includes(6))
})

test("an invalid resume token ends the subscription with the error of the gateway", async (context) => {
  const { gateway } = await world(context)
  const { subscribe } = reader(context, gateway.url)
  const end = await subscribe("s", { resumeToken: "no token" }).closed.catch((error) => error)
  assert(end instanceof GatewayError)
  assert.equal(end.status, 400)
})

test("publishing while responses are lost: each message is stored once, in order", async (context) => {
  let posts = 0
  const lossy = (method) => (method === "POST" && posts++ % 3 !== 2 ? { pieces: 0, cut: 30 } : {})
  const { gateway, relay } = await world(context, { rule: lossy })
  const { client } = reader(context, relay.url)
  for (let round = 0; round < 20; round++) {
    await Promise.all([0, 1, 2].map((n) => client.publish("s", 3 * round + n, { create: true })))
  }
  const kept = await fetch(`${gateway.url}/v1/stream/s`).then((answer) => answer.json())
  assert.deepEqual(kept, numbers(60))
  assert(posts >= 3 * 20)
})

test("a refused message rejects its publish, and later ones are published", async (context) => {
  const { gateway } = await world(context)
  const { client } = reader(context, gateway.url)
  await assert.rejects(client.publish("s", 1), { name: "GatewayError", status: 404 })
  await client.publish("s", 2, { create: true })
  await assert.rejects(client.publish("s", "text", { contentType: "text/plain" }), { status: 409 })
  await client.publish("s", 3)
  assert.deepEqual(await fetch(`${gateway.url}/v1/stream/s`).then((answer) => answer.json()), [2, 3])
})

test("a gateway that has forgotten the producer stores its next message", async (context) => {
  let gateway = await start()
  context.after(() => gateway.stop())
  const { client } = reader(context, gateway.url)
  for (const n of [1, 2]) await client.publish("s", n, { create: true })
  await gateway.stop()
  gateway = await start(gateway.address)
  await client.publish("s", 3, { create: true })
  assert.deepEqual(await fetch(`${gateway.url}/v1/stream/s`).then((answer) => answer.json()), [3])
})

test("reader.js prints what it reads and how", async (context) => {
  const { gateway } = await world(context)
  await append(gateway, "s", 1, 2)
  const program = new URL("reader.js", import.meta.url).pathname
  const { stdout } = await promisify(execFile)("node", [program, gateway.url, "s", "2", '{"from":"earliest"}'])
  const lines = stdout.trim().split("\n").map((line) => JSON.parse(line))
  assert.deepEqual(lines.filter(({ stream }) => stream).map(({ data }) => data), [1, 2])
  assert.equal(lines.at(-1).event, "end")
})
