// The rules that the JavaScript client and the Rust client have in common: tests/client/rules.json, which tests/client/rules.rs
// reads too.
import assert from "node:assert/strict"
import { once } from "node:events"
import { readFileSync } from "node:fs"
import { createServer } from "node:http"
import { test } from "node:test"
import { Client, QueueFullError } from "../../clients/js/src/pollgate.js"
import { token } from "../conformance/credentials.js"
import { start } from "../conformance/gateway.js"
import { append, numbers, QUICK, until } from "./world.js"

const rules = JSON.parse(readFileSync(new URL("../client/rules.json", import.meta.url), "utf8"))

// A gateway behind a proxy. `scripts` has, by stream, the `answers` of the proxy to the first appends, and the appends that it
// `refuses`. All others go to the gateway.
async function scripted(context) {
  const gateway = await start("127.0.0.1:0", [])
  const scripts = new Map()
  // A client may use an idle connection at the moment at which it would be closed.
  const server = createServer({ keepAliveTimeout: 0 }, async (request, response) => {
    const parts = []
    for await (const part of request) parts.push(part)
    const body = Buffer.concat(parts)
    const script = scripts.get(decodeURIComponent(request.url.split("?")[0].split("/").pop())) ?? {}
    const step = refusalOf(script.refuses, body) ?? script.answers?.shift() ?? "pass"
    script.requests = (script.requests ?? 0) + 1
    script.tokens?.push(request.headers.authorization?.replace("Bearer ", ""))
    if (step.status) return void response.writeHead(step.status, { "content-type": "text/html" }).end(step.status === 204 ? "" : "<".repeat(step.page ?? 10))
    if (step === "drop") return void response.destroy()
    const { method, headers } = request
    const answer = await fetch(gateway.url + request.url, { method, headers: plain(headers), body: method === "GET" ? undefined : body })
    const content = Buffer.from(await answer.arrayBuffer())
    if (step === "lose") return void response.destroy()
    response.writeHead(answer.status, plain(Object.fromEntries(answer.headers))).end(content)
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  context.after(() => {
    server.close()
    server.closeAllConnections()
    return gateway.stop()
  })
  return { gateway, scripts, url: `http://127.0.0.1:${server.address().port}` }
}

const refusalOf = (refuses, body) =>
  refuses && (refuses.longer ? body.length > refuses.longer : body.includes(refuses.containing)) ? refuses : undefined

// The fields that are not about one connection.
function plain(headers) {
  const { connection, "transfer-encoding": _, "content-length": __, host, expect, "keep-alive": ___, ...rest } = headers
  return rest
}

function client(context, url, options = {}) {
  const client = new Client(url, { WebSocket: undefined, ...options, settings: { ...QUICK, ...options.settings } })
  context.after(() => client.close())
  return client
}

const outcomeOf = (promise) => promise.then(() => "kept", (error) => error.status ?? error)

const cases = rules.publishing.flatMap(({ statuses = [undefined], ...rule }) =>
  statuses.map((status) => {
    if (status === undefined) return rule
    if (rule.refuses) return { ...rule, refuses: { ...rule.refuses, status }, name: `${rule.name}: ${status}`, outcomes: rule.outcomes.map((one) => (one === "refused" ? status : one)) }
    return { ...rule, answers: [{ status }], name: `${rule.name}: ${status}` }
  }))

test("publishing", async (context) => {
  const { gateway, scripts, url } = await scripted(context)
  await Promise.all(cases.map((rule, index) => context.test(rule.name, async (context) => {
    const stream = `rule-${index}`
    scripts.set(stream, { answers: structuredClone(rule.answers), refuses: rule.refuses })
    const publisher = client(context, url)
    const publish = (messages) => Promise.all(messages.map((message) => outcomeOf(publisher.publish(stream, message, { create: true }))))
    const outcomes = await publish(rule.publish)
    if (rule.forget) await fetch(`${gateway.url}/v1/stream/${stream}`, { method: "DELETE" })
    outcomes.push(...(await publish(rule.then)))
    assert.deepEqual(outcomes, rule.outcomes)
    const stored = await (await fetch(`${gateway.url}/v1/stream/${stream}`)).json()
    assert.deepEqual(stored, rule.stored)
  })))
})

for (const [index, rule] of rules.tokens.entries()) {
  test(`tokens: ${rule.name}`, { skip: token && "its tokens are its own" }, async (context) => {
    const { scripts, url } = await scripted(context)
    const stream = `token-${index}`
    const script = { answers: structuredClone(rule.answers), tokens: [] }
    scripts.set(stream, script)
    let count = 0
    const fetched = async () => {
      if (rule.fails) throw new Error("logged out")
      return `${++count}`
    }
    const publisher = client(context, url, { token: rule.fixed ? "1" : fetched })
    const outcome = await outcomeOf(publisher.publish(stream, 1, { create: true }))
    assert.equal(outcome.message ?? outcome, rule.outcome)
    assert.equal(script.tokens.length, rule.sent.length)
    rule.sent.forEach((sent, at) => sent === "*" || assert.equal(script.tokens[at], sent))
  })
}

test("the queue of publishes is bounded, in messages and in bytes, and has room again later", async (context) => {
  const { gateway, scripts, url } = await scripted(context)
  for (const settings of [{ publishQueueMax: 4 }, { publishQueueBytesMax: 12 }]) {
    const stream = Object.keys(settings)[0]
    const script = { refuses: { containing: "", status: 503 } }
    scripts.set(stream, script)
    const publisher = client(context, url, { settings })
    const accepted = [1, 2, 3, 4].map(() => publisher.publish(stream, 1, { create: true }))
    if (settings.publishQueueBytesMax) accepted.push(publisher.publish(stream, "123456", { create: true }))
    await assert.rejects(publisher.publish(stream, 2), (error) => error instanceof QueueFullError && /room\(\)/.test(error.message))
    let roomy = false
    const room = publisher.room().then(() => (roomy = true))
    await until(() => script.requests > 2)
    assert.equal(roomy, false)
    script.refuses = undefined
    await Promise.all([room, ...accepted])
    await publisher.publish(stream, 3)
    const stored = await (await fetch(`${gateway.url}/v1/stream/${stream}`)).json()
    assert.deepEqual(stored.filter((value) => value !== "123456"), [1, 1, 1, 1, 3])
  }
})

for (const { url, says } of rules.urls) {
  test(`a URL that cannot work fails at once: ${url}`, () => {
    assert.throws(() => new Client(url), (error) => error instanceof TypeError && error.message.includes(says) && !error.message.includes("secret"))
  })
}

test("a wrong call fails at once", async (context) => {
  for (const options of [{ form: ["sse"] }, { settings: { interval: "5" } }, { settings: { reprobe: 1 } }, { forms: ["sms"] }, { storage: {} }]) {
    assert.throws(() => new Client("http://127.0.0.1:1", options), TypeError, JSON.stringify(options))
  }
  const reader = client(context, "http://127.0.0.1:1")
  const calls = [[[]], [[""]], ["s", "handler"], ["s", { resume: "" }], ["s", { history: -1 }], ["s", { history: 1, from: "earliest" }], ["s", { resumeToken: 1 }]]
  for (const call of calls) assert.throws(() => reader.subscribe(...call), /TypeError|RangeError/, JSON.stringify(call))
  for (const [data, contentType] of [[undefined, undefined], [() => {}, "Application/JSON"], [{}, "text/plain"], ["a", 1]]) {
    await assert.rejects(reader.publish("s", data, { contentType }), TypeError)
  }
})

test("the case of content types makes no difference, for readers and for publishers", async (context) => {
  const { gateway } = await scripted(context)
  const reader = client(context, gateway.url, { forms: ["sse"] })
  for (const [index, { type, kind }] of rules.types.entries()) {
    const stream = `type-${index}`
    const sent = { text: "héllo", json: { n: 1 }, binary: new TextEncoder().encode("héllo") }[kind]
    await reader.publish(stream, sent, { contentType: type, create: true })
    await reader.publish(stream, sent, { contentType: type.toLowerCase() })
    const got = []
    const subscription = reader.subscribe(stream, { from: "earliest" }, (message) => void got.push(message))
    await until(() => (kind === "text" ? got[0]?.data.length === 10 : got.length === 2))
    subscription.close()
    assert.deepEqual(got[0].data, kind === "text" ? "héllohéllo" : sent, type)
    assert.equal(got[0].contentType, kind === "json" ? "application/json" : type)
  }
})

test("the last messages come first, then those that follow, each with its offset", async (context) => {
  const { gateway } = await scripted(context)
  for (const [index, { type, appends, history, data }] of rules.history.entries()) {
    for (const form of ["sse", "ndjson", "long-poll", "short-poll"]) {
      const stream = `history-${index}-${form}`
      const post = (body) => fetch(`${gateway.url}/v1/stream/${stream}?create=1`, { method: "POST", body, headers: { "content-type": type } })
      for (const body of appends) await post(body)
      const reader = client(context, gateway.url, { forms: [form], times: true })
      const got = []
      const subscription = reader.subscribe(stream, { history }, (message) => void got.push(message))
      await until(() => subscription.resumeToken && got.length === data.length)
      await post("5")
      await until(() => got.length === data.length + 1)
      reader.close()
      const texts = got.map(({ data }) => (data instanceof Uint8Array ? new TextDecoder().decode(data) : `${data}`))
      assert.deepEqual(texts, [...data, "5"], `${type}, the last ${history}`)
      for (const [at, { offset, time }] of got.entries()) {
        const rest = await (await fetch(`${gateway.url}/v1/stream/${stream}?offset=${offset}`)).text()
        const expected = texts.slice(at + 1)
        assert.equal(rest, type.includes("json") ? `[${expected}]` : expected.join(""), `behind ${offset}`)
        assert(Math.abs(time - Date.now()) < 60_000, `${time}`)
      }
    }
  }
})

test("listeners that are added right behind `subscribe` hear of the first form", async (context) => {
  const { gateway } = await scripted(context)
  const reader = client(context, gateway.url, { forms: ["sse"] })
  const forms = []
  reader.subscribe("s", () => {})
  reader.addEventListener("form", ({ detail }) => forms.push(detail))
  await until(() => forms.length)
  assert.deepEqual(forms, [{ from: null, to: "sse", reason: "start" }])
})

test("what was learned of a network is kept for the next client, unless its options forbid that", async (context) => {
  const { gateway } = await scripted(context)
  const kept = new Map()
  const storage = { getItem: (key) => kept.get(key) ?? null, setItem: (key, text) => void kept.set(key, text) }
  const first = client(context, gateway.url, { storage, forms: ["sse", "long-poll", "short-poll"], network: "home" })
  first.subscribe("s", () => {})
  await until(() => kept.size)
  const [[key, text]] = kept
  assert(key.includes(gateway.url), key)
  assert.deepEqual(JSON.parse(text), { networks: [{ label: "home", form: "sse" }] })
  kept.set(key, JSON.stringify({ networks: [{ label: "home", form: "long-poll" }, null, { label: "x", form: "sms", hold: "1" }] }))
  const second = client(context, gateway.url, { storage, forms: ["sse", "long-poll", "short-poll"], network: "home" })
  const forms = []
  second.addEventListener("form", ({ detail }) => forms.push(detail.to))
  second.subscribe("s", () => {})
  await until(() => forms.length)
  assert.equal(forms[0], "long-poll")
  // Invalid JSON and a storage that throws are ignored.
  kept.set(key, "{")
  const refusing = { ...storage, setItem: () => { throw new Error("full") } }
  const third = client(context, gateway.url, { storage: refusing, forms: ["sse", "long-poll", "short-poll"] })
  const got = []
  third.subscribe("s", { from: "earliest" }, ({ data }) => void got.push(data))
  await append(gateway, "s", ...numbers(2))
  await until(() => got.length === 2)
})
