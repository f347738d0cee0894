// The protocol's conformance tests over two gateways that share an engine: each request goes to the other one than the request before.
// Subscriptions belong to one gateway, so they are not among these tests. ENGINE_BINARY names the engine, by default redis-server.
import { runConformanceTests } from "@durable-streams/server-conformance-tests"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtemp, rm } from "node:fs/promises"
import { createServer, request } from "node:http"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll } from "vitest"
import { start } from "./gateway.js"

const directory = await mkdtemp(join(tmpdir(), "engine-"))
const socket = join(directory, "socket")
const engine = spawn(process.env.ENGINE_BINARY ?? "redis-server",
  ["--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no", "--dir", directory], { stdio: "ignore" })
for (let isUp = false; !isUp; ) {
  if (engine.exitCode !== null) throw new Error(`the engine has ended with ${engine.exitCode}`)
  const connection = connect(socket)
  isUp = await once(connection, "connect").then(() => true, () => new Promise((again) => setTimeout(again, 20, false)))
  connection.destroy()
}

const further = ["--store", `redis+unix://${socket}`, "--origin", "https://example.com"]
const gateways = await Promise.all(["one", "other"].map((name) => start(undefined, [...further, "--gateway-name", name])))

// Sends each request to the gateway that did not get the one before.
let next = 0
const alternating = createServer((incoming, outgoing) => {
  const { hostname, port } = new URL(gateways[next++ % 2].url)
  const { method, url: path, headers } = incoming
  const forwarded = request({ hostname, port, method, path, headers, agent: false }, (answer) => {
    outgoing.writeHead(answer.statusCode, answer.statusMessage, answer.rawHeaders)
    outgoing.flushHeaders()
    answer.pipe(outgoing)
    answer.on("error", () => outgoing.destroy())
  })
  forwarded.on("error", () => outgoing.destroy())
  outgoing.on("close", () => forwarded.destroy())
  incoming.pipe(forwarded)
}).listen(0, "127.0.0.1")
await once(alternating, "listening")

afterAll(async () => {
  alternating.close()
  alternating.closeAllConnections()
  await Promise.all(gateways.map((gateway) => gateway.stop()))
  engine.kill("SIGKILL")
  await rm(directory, { recursive: true })
})

runConformanceTests({ baseUrl: `http://127.0.0.1:${alternating.address().port}`, longPollTimeoutMs: 2000 })
