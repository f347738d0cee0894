// Clients that change the gateway, of several on one Redis: nothing is lost and nothing comes twice.
import assert from "node:assert/strict"
import { test } from "node:test"
import { gatewaysOf } from "./engine.js"
import { Line } from "./line.js"
import { DOMAIN, JSON_NAMESPACE, options, stanzaOver } from "./online.js"

const numbers = (from, to) => Array.from({ length: to - from }, (_, index) => `${from + index}`)

test("a stream goes on at another gateway, also while its older connection seems to be alive", options, async (context) => {
  const gateways = await gatewaysOf(context)
  const line = await Line.to(context, gateways[0])
  const carol = await stanzaOver(context, line, "carol")
  await gateways[0].create("a")
  await carol.subscribeToNode(DOMAIN, "a")
  for (const round of [0, 1, 2, 3, 4]) {
    const next = gateways[(round + 1) % 2]
    await gateways[0].append("a", `${3 * round + 1}`)
    if (round % 2) await carol.notified(3 * round + 1)
    const again = carol.resumed()
    line.lead(next)
    if (round < 2) line.cut()
    else line.cutNear()
    await gateways[1].append("a", `${3 * round + 2}`)
    await again
    await carol.publish(DOMAIN, "a", { itemType: JSON_NAMESPACE, json: 3 * round + 3 })
    await carol.notified(3 * round + 3)
  }
  assert.deepEqual(carol.contents, numbers(1, 16))
})

test("a stream goes on at another gateway after its gateway was killed", options, async (context) => {
  const gateways = await gatewaysOf(context)
  const line = await Line.to(context, gateways[0])
  const carol = await stanzaOver(context, line, "carol")
  await gateways[0].create("a")
  await carol.subscribeToNode(DOMAIN, "a")
  await gateways[0].append("a", "1")
  await carol.notified(1)
  const again = carol.resumed()
  line.lead(gateways[1])
  await gateways[0].stop()
  await gateways[1].append("a", "2")
  await again
  await gateways[1].append("a", "3")
  // After a kill nobody knows what has arrived, so it may come again.
  const isNew = (content, index, all) => all.indexOf(content) === index
  while (carol.contents.filter(isNew).length < 3) await carol.notified(carol.contents.length + 1)
  assert.deepEqual(carol.contents.filter(isNew), numbers(1, 4))
})
