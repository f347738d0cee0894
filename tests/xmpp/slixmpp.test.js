// Stream management of slixmpp (XEP-0198) at the gateway itself. slixmpp speaks TCP alone, so the framing is translated; what it sends is its own.
import assert from "node:assert/strict"
import { test } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"
import { Client } from "./client.js"
import { tcpOf } from "./framing.js"
import { Line } from "./line.js"
import { DOMAIN, gatewayOf, options } from "./online.js"

const numbers = (from, to) => Array.from({ length: to - from }, (_, index) => `${from + index}`)

test("slixmpp resumes its stream after each lost connection, and loses nothing", options, async (context) => {
  const gateway = await gatewayOf(context)
  const line = await Line.to(context, gateway)
  const port = await tcpOf(context, () => line.xmpp, DOMAIN)
  const login = (user) => ["127.0.0.1", `${port}`, `${user}@${DOMAIN}`, "any", DOMAIN]
  const client = await Client.connect(context, { login }, "alice", "resumes")
  await gateway.create("a")
  await gateway.create("b")
  await client.do("subscribe", { node: "a", bare: false })
  const resumed = () => client.heard.filter(({ event }) => event === "resumed").length
  for (const round of [0, 1, 2, 3, 4, 5]) {
    await gateway.append("a", `${3 * round}`)
    // Cut before, or after, it has been notified; the gateway may be the last one to learn it.
    if (round % 2) await client.contents(3 * round + 1)
    // Its answer may be lost with the connection, but not what it publishes.
    await client.do("submit", { node: "b", content: `${round}`, id: `p${round}` })
    if (round % 3 === 2) line.cutNear()
    else line.cut()
    await gateway.append("a", `${3 * round + 1}`)
    await client.until(() => resumed() > round)
    await gateway.append("a", `${3 * round + 2}`)
    await client.contents(3 * round + 3)
  }
  assert.deepEqual(await client.contents(18), numbers(0, 18))
  assert.equal(client.repetitions, 0)
  while ((await gateway.read("b")).length < 6) await sleep(20)
  assert.deepEqual(await gateway.read("b"), [0, 1, 2, 3, 4, 5])
  assert.equal(client.heard.filter(({ event }) => event === "connected").length, 1)
})
