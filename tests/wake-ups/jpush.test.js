// The official library of JPush accepts the fake; then the request of the gateway is compared with its own.
import assert from "node:assert/strict"
import { execFile } from "node:child_process"
import { once } from "node:events"
import { createServer } from "node:http"
import { test } from "node:test"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { append, gatewayOf, metric, register, until } from "./world.js"

const file = (name) => fileURLToPath(new URL(name, import.meta.url))

async function jpush(context) {
  const requests = []
  const server = createServer(async (request, response) => {
    let body = ""
    for await (const part of request) body += part
    requests.push({ method: request.method, url: request.url, headers: request.headers, body: JSON.parse(body) })
    const isDead = body.includes('"dead"')
    const answer = isDead ? { error: { code: 1011, message: "cannot find user by this audience" } } : { sendno: "0", msg_id: "18100287007833676" }
    response.writeHead(isDead ? 400 : 200, { "content-type": "application/json" }).end(JSON.stringify(answer))
  }).listen(0, "127.0.0.1")
  await once(server, "listening")
  context.after(() => {
    server.close()
    server.closeAllConnections()
  })
  return { url: `http://127.0.0.1:${server.address().port}`, requests }
}

test("requests to JPush equal those of its official library", { timeout: 120_000 }, async (context) => {
  const fake = await jpush(context)
  const { stdout } = await promisify(execFile)(file(".venv/bin/python"), [file("jpush_sender.py"), fake.url])
  assert.deepEqual(JSON.parse(stdout), ["18100287007833676", 1011])
  const [theirs] = fake.requests.splice(0)

  const app = { name: "jpush", kind: "jpush", id: "a".repeat(24), key: `${"b".repeat(24)}\n`, base_url: fake.url }
  const gateway = await gatewayOf(context, [app])
  await register(gateway, "phone", [{ app: "jpush", credential: "alive" }])
  await register(gateway, "lost", [{ app: "jpush", credential: "dead" }])
  await append(gateway, 1)
  const own = await until("both were woken", () => fake.requests.length >= 2 && fake.requests)
  const ours = own.find(({ body }) => JSON.stringify(body).includes("alive"))
  assert.deepEqual([ours.method, ours.url], [theirs.method, theirs.url])
  assert.equal(ours.headers.authorization, theirs.headers.authorization)
  assert.equal(ours.headers["content-type"].split(";")[0], theirs.headers["content-type"].split(";")[0])
  const body = JSON.parse(JSON.stringify(ours.body).replace(/[0-9a-f]{16}/, "0123456789abcdef"))
  assert.deepEqual(body, theirs.body)
  await until("both answers were understood", async () => {
    const count = (verdict) => metric(gateway, `pollgate_wakes_total{provider="jpush",verdict="${verdict}"}`)
    return (await count("ok")) === 1 && (await count("gone")) === 1
  })
})
