// What the dashboard costs a gateway with 10 000 streams, and a held poll on each:
//
//   GATEWAY_BINARY=../../target/release/pollgate node crowd.js
//
// Fails if its first paint takes a second or more, or if the gateway takes 2 % of a core or more for it. Needs 11 000 descriptors.
import { once } from "node:events"
import { readFileSync } from "node:fs"
import { connect } from "node:net"
import { chromium } from "playwright-core"
import { start } from "../conformance/gateway.js"
import { startBrowser } from "./chromium.js"

const STREAMS = 10_000
const AT_ONCE = 100
const SECONDS = 20
const PAINT_MS_MAX = 1000
const CORE_PERCENT_MAX = 2

const sleep = (seconds) => new Promise((wait) => setTimeout(wait, 1000 * seconds))

// Creates a stream and polls it, over one connection.
async function hold(gateway, number) {
  const { hostname, port, host } = new URL(gateway.url)
  const socket = connect(Number(port), hostname)
  const send = (method, query) => socket.write(`${method} /v1/stream/crowd/${number}${query} HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 0\r\n\r\n`)
  const poll = () => send("GET", "?offset=now&live=long-poll&timeout=55")
  await once(socket, "connect")
  send("PUT", "")
  const [answer] = await once(socket, "data")
  if (!answer.toString().startsWith("HTTP/1.1 201 ")) throw new Error(answer.toString())
  socket.on("data", poll)
  poll()
  return socket
}

// Processor time of a process, in seconds. A tick is a hundredth of one.
function processorTime(pid) {
  const [user, system] = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ").slice(11, 13)
  return (Number(user) + Number(system)) / 100
}

// The part of a core that a process takes, in percent.
async function busy(pid) {
  const before = processorTime(pid)
  await sleep(SECONDS)
  return (100 * (processorTime(pid) - before)) / SECONDS
}

const held = async (gateway) => (await (await fetch(`${gateway.admin}/overview`)).json()).counts.heldPolls

const gateway = await start("127.0.0.1:0", ["--hold", "55s", "--hold-max", "55s", "--limit", "connections_per_second_max=100000"])
const sockets = []
while (sockets.length < STREAMS) {
  sockets.push(...(await Promise.all(Array.from({ length: AT_ONCE }, (_, at) => hold(gateway, sockets.length + at)))))
}
while ((await held(gateway)) < STREAMS) await sleep(0.1)

const without = await busy(gateway.pid)
const { browser, close } = await startBrowser(chromium)
const page = await browser.newPage({ viewport: { width: 1280, height: 900 } })
await page.goto(gateway.admin)
const painted = () => performance.getEntriesByName("first-contentful-paint")[0]?.startTime
await page.waitForFunction(painted)
const paint = await page.evaluate(painted)
await page.getByRole("button", { name: "crowd/0", exact: true }).waitFor()
const withPage = await busy(gateway.pid)

const cost = withPage - without
console.log(`first paint ${paint.toFixed(0)} ms; of a core, the gateway takes ${without.toFixed(2)} % without the page, and ${cost.toFixed(2)} % more with it`)
await close()
sockets.forEach((socket) => socket.destroy())
await gateway.stop()
process.exitCode = paint < PAINT_MS_MAX && cost < CORE_PERCENT_MAX ? 0 : 1
