// The protocol's conformance tests, with subscriptions, over two gateways that share an engine: each request goes to the other one than
// the request before, those of webhooks' workers too. ENGINE_BINARY names the engine, by default redis-server; ENGINE_NODES=3 makes it a
// cluster of three.
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
import { reservedPort } from "./ports.js"

const directory = await mkdtemp(join(tmpdir(), "engine-"))
const nodeCount = Number(process.env.ENGINE_NODES ?? 1)

// Sends a command to a server, and returns its answer.
async function command(node, text) {
  const connection = connect(node.socket)
  connection.end(`${text}\r\nQUIT\r\n`)
  let answer = ""
  for await (const part of connection) answer += part
  return answer
}

async function until(what, condition) {
  for (const start = Date.now(); !(await condition()); ) {
    if (Date.now() > start + 60_000) throw new Error(`waited in vain: ${what}`)
    await new Promise((again) => setTimeout(again, 20))
  }
}

async function startNode(index) {
  const node = { socket: join(directory, `socket-${index}`), port: await reservedPort(), bus: await reservedPort() }
  const cluster = ["--cluster-enabled", "yes", "--cluster-config-file", `nodes-${index}`, "--cluster-port", node.bus]
  node.process = spawn(process.env.ENGINE_BINARY ?? "redis-server",
    ["--bind", "127.0.0.1", "--port", node.port, "--unixsocket", node.socket, "--save", "", "--appendonly", "no", "--dir", directory,
      ...(nodeCount > 1 ? cluster : [])], { stdio: "ignore" })
  await until("the engine listens", async () => {
    if (node.process.exitCode !== null) throw new Error(`the engine has ended with ${node.process.exitCode}`)
    return (await command(node, "PING").catch(() => "")).startsWith("+PONG")
  })
  return node
}

const nodes = []
for (let index = 0; index < nodeCount; index++) nodes.push(await startNode(index))
if (nodeCount > 1) {
  const part = Math.ceil(16384 / nodeCount)
  for (const [index, node] of nodes.entries()) {
    await command(node, `CLUSTER ADDSLOTSRANGE ${index * part} ${Math.min((index + 1) * part, 16384) - 1}`)
    if (index > 0) await command(nodes[0], `CLUSTER MEET 127.0.0.1 ${node.port} ${node.bus}`)
  }
  const isUp = async (node) => {
    const info = await command(node, "CLUSTER INFO")
    return info.includes("cluster_state:ok") && info.includes(`cluster_size:${nodeCount}`)
  }
  await until("the cluster is up", async () => (await Promise.all(nodes.map(isUp))).every(Boolean))
}

const gateways = []

// Sends each request to the gateway that did not get the one before. It leaves connections open that are idle: the client may use one
// at the moment at which it would be closed.
let next = 0
const alternating = createServer({ keepAliveTimeout: 0 }, (incoming, outgoing) => {
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
const baseUrl = `http://127.0.0.1:${alternating.address().port}`

const store = nodeCount > 1 ? `redis+cluster://127.0.0.1:${nodes[0].port}` : `redis+unix://${nodes[0].socket}`
const further = ["--store", store, "--origin", "https://example.com", "--outbound-allow", "127.0.0.1", "--public-url", baseUrl]
gateways.push(...await Promise.all(["one", "other"].map((name) => start(undefined, [...further, "--gateway-name", name]))))

afterAll(async () => {
  alternating.close()
  alternating.closeAllConnections()
  await Promise.all(gateways.map((gateway) => gateway.stop()))
  nodes.forEach((node) => node.process.kill("SIGKILL"))
  await rm(directory, { recursive: true })
})

runConformanceTests({ baseUrl, longPollTimeoutMs: 2000, subscriptions: true })
