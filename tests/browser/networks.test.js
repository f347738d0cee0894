// The JavaScript client in Node behind every hostile network of the comparison tool (loadtest/README.md): nothing is lost,
// doubled or out of order.
import assert from "node:assert/strict"
import { readFileSync } from "node:fs"
import { test } from "node:test"
import { Client, SETTINGS } from "../../clients/js/src/pollgate.js"
import { start } from "../conformance/gateway.js"
import { middlebox } from "./middlebox.js"
import { stopwatch } from "../mqtt-clients/stopwatch.js"
import { numbers, until } from "./world.js"

// All times of paths and networks are divided by ten.
const SCALE = 0.1

// The form on a path without faults. Node 20 has no WebSockets, so networks that block only those, or only connections without
// heartbeats, have no effect.
const BEST = globalThis.WebSocket ? "websocket" : "sse"

// Each network, with its first time scaled, and the proof of its effect: `faults`, or the `form` that the client uses at the
// end, or returns to on a busy machine.
const NETWORKS = {
  "none": { form: BEST },
  "nat-idle:6s": {},
  "nat-reset:6s": {},
  "address-change:6s": { faults: true },
  "proxy-cut:6s": {},
  "proxy-cut-30:3s": {},
  "proxy-cut-100:10s": {},
  "proxy-buffer": { form: "long-poll" },
  "proxy-buffer-4k": {},
  "proxy-buffer-32k": { form: "long-poll" },
  "no-websocket": { form: "sse" },
  "no-websocket-400": { form: "sse" },
  "websocket-cut:20ms": {},
  "no-streaming:1s": { form: "long-poll" },
  "http10": {},
  "captive:6s": { faults: true, form: BEST },
  "slow:30ms": {},
  "lossy-answers": { faults: true },
}

// The gateway's timeouts.
const LIMITS = { live_heartbeat: 1500, live_life: 6000, websocket_ping: 2500, websocket_pong_timeout: 800, idle_timeout: 7500 }
const GATEWAY = ["--hold-max", "6s", ...Object.entries(LIMITS).flatMap(([name, millis]) => ["--limit", `${name}=${millis}ms`])]

// The settings of the client. Those that it sends to the gateway are whole seconds.
const WHOLE = ["hold", "heartbeatMin", "heartbeatMax"]
const scaled = ([name, value]) => {
  if (name === "queueMax" || value === null) return [name, value]
  return [name, WHOLE.includes(name) ? Math.round(SCALE * value) : SCALE * value]
}
const CLOCKS = Object.fromEntries(Object.entries(SETTINGS).map(scaled))

// Messages come in bursts, with pauses in which idle timeouts expire.
const BURSTS = 5
const MESSAGES = 200
const BETWEEN = 15
const PAUSE = 9000
const COUNT = BURSTS * MESSAGES

// Time limit for messages that have not arrived at the end of the last burst.
const GRACE = 60_000

const sleep = (millis) => new Promise((wait) => setTimeout(wait, millis))

// A gateway with these timeouts.
async function gatewayWith(context, settings) {
  const gateway = await start("127.0.0.1:0", settings)
  context.after(() => gateway.stop())
  return gateway
}

// A client that is closed with the test.
function clientOf(context, url, settings) {
  const client = new Client(url, { settings })
  context.after(() => client.close())
  return client
}

// A reader of one stream behind that network.
async function behind(context, gateway, network, { stream, settings, from }) {
  const way = await middlebox(context, network, gateway.address)
  const client = clientOf(context, way.url, settings)
  const [got, events] = [[], []]
  for (const name of ["form", "gap", "closed", "error"]) {
    client.addEventListener(name, ({ detail }) => events.push({ name, ...detail }))
  }
  const subscription = client.subscribe(stream, { from }, ({ data }) => void got.push(data))
  const forms = () => events.filter(({ name }) => name === "form")
  const others = () => events.filter(({ name }) => name !== "form")
  return { network, stream, way, client, subscription, got, forms, others }
}

test("the networks are all that the comparison tool has, and none", () => {
  const profiles = readFileSync(new URL("../../loadtest/src/network/profiles.toml", import.meta.url), "utf8")
  const names = [...profiles.matchAll(/^name = "(.+)"$/gm)].map(([, name]) => name)
  assert.deepEqual(Object.keys(NETWORKS).map((network) => network.split(":")[0]), ["none", ...names])
})

test("behind every network all messages come once and in order", async (context) => {
  const gateway = await gatewayWith(context, GATEWAY)
  const direct = clientOf(context, gateway.url, CLOCKS)
  const readers = await Promise.all(Object.keys(NETWORKS).map((network, n) => {
    return behind(context, gateway, network, { stream: `stream-${n}`, settings: CLOCKS, from: "earliest" })
  }))
  // Responses to the publisher are lost, too.
  const publisher = ({ network, client }) => (network === "lossy-answers" ? client : direct)
  const published = []
  for (const n of numbers(COUNT)) {
    if (n % MESSAGES === 0 && n > 0) await sleep(PAUSE)
    for (const reader of readers) published.push(publisher(reader).publish(reader.stream, n, { create: true }))
    await sleep(BETWEEN)
  }
  await Promise.all(published)
  const isAsShown = ({ network, forms }) => [undefined, forms().at(-1).to].includes(NETWORKS[network].form)
  // Each by itself: on a busy machine some of the clients are always about to try another form.
  const shown = new Set()
  const hasShown = (reader) => {
    if (reader.got.length >= COUNT && isAsShown(reader)) shown.add(reader)
    return shown.has(reader)
  }
  await until(() => readers.map(hasShown).every(Boolean), GRACE).catch(() => {})
  // A duplicate would arrive later.
  await sleep(500)
  for (const reader of readers) {
    const { network, way, got, forms, others } = reader
    const changes = forms().map(({ from, to, reason }) => `${from} ${to} ${reason}`)
    const faults = await way.end()
    context.diagnostic(`${network}: ${got.length} messages, ${faults} faults, ${changes.join(", ")}`)
    assert.deepEqual(got, numbers(COUNT), network)
    assert.deepEqual(others(), [], network)
    assert(faults > 0 || !NETWORKS[network].faults, `${network} was not felt`)
    assert(shown.has(reader), `${network}: ${changes}`)
  }
})

// With unscaled times: a message that was published before, and one that is published before anything has got through.
test("behind a proxy that buffers, the first message arrives within 5 s", async (context) => {
  const gateway = await gatewayWith(context, [])
  const direct = clientOf(context, gateway.url)
  const networks = ["proxy-buffer", "proxy-buffer-4k", "proxy-buffer-32k", "no-streaming"]
  await Promise.all(networks.map(async (network) => {
    await direct.publish(network, "before", { create: true })
    const began = stopwatch()
    const late = await behind(context, gateway, network, { stream: network, from: "earliest" })
    const early = await behind(context, gateway, network, { stream: network })
    await until(() => late.got.length)
    assert(began.own() < 5000, network)
    // It begins at the position of its first poll, whose response may be late on a busy machine.
    await until(() => early.subscription.resumeToken)
    await sleep(300)
    const published = stopwatch()
    await direct.publish(network, "after")
    await until(() => early.got.length && late.got.length > 1)
    const waited = published.own()
    context.diagnostic(`${network}: ${Math.round(waited)} ms`)
    assert(waited < 5000, `${network}: ${waited} ms`)
    assert.deepEqual([late.got, early.got], [["before", "after"], ["after"]], network)
  }))
})
