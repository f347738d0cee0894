// Clients that change the gateway, of several on one Redis: nothing is lost and nothing comes twice.
import assert from "node:assert/strict"
import { test } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"
import { Bosh, itemsOf } from "./bosh.js"
import { Client } from "./client.js"
import { gatewaysOf } from "./engine.js"
import { Line } from "./line.js"
import { Prosody } from "./prosody.js"
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

// What a client of BOSH was notified of, in order.
class Heard {
  contents = []

  take(body) {
    assert.doesNotMatch(body, /terminate/)
    this.contents.push(...itemsOf(body).map(({ content }) => content))
    return body
  }
}

// Two gateways with the streams a and b, and a client of the first one that has subscribed to a.
async function subscribed(context) {
  const gateways = await gatewaysOf(context)
  await gateways[0].create("a")
  await gateways[0].create("b")
  const client = await Bosh.loggedIn(context, gateways[0].bosh, "alice")
  await client.subscribe("a")
  const heard = new Heard()
  return { gateways, client, heard }
}

test("each request of a BOSH client may go to another gateway, also while one waits", options, async (context) => {
  const { gateways, client, heard } = await subscribed(context)
  let waiting
  for (const number of numbers(0, 12)) {
    client.url = gateways[number % 2].bosh
    const publication = client.publication("b", number)
    const answering = client.next("", publication)
    // The one that waits at the other gateway is released.
    if (waiting) heard.take(await waiting)
    let answered = heard.take(await answering)
    // A session that a gateway wants answers what waits, so that its client goes on there: the result comes with the next response then.
    while (!/type=["']result/.test(answered)) answered = heard.take(await client.next())
    // The other gateway has the same bytes.
    client.url = gateways[(number + 1) % 2].bosh
    assert.equal(await client.send(client.rid, "", publication), answered)
    client.url = gateways[number % 2].bosh
    waiting = client.next()
    await gateways[number % 2].append("a", number)
  }
  heard.take(await waiting)
  while (heard.contents.length < 12) heard.take(await client.next())
  assert.deepEqual(heard.contents, numbers(0, 12))
  assert.deepEqual(await gateways[0].read("b"), numbers(0, 12).map(Number))
})

test("requests that overtake each other on their way to two gateways come in order", options, async (context) => {
  const gateways = await gatewaysOf(context)
  const client = await Bosh.loggedIn(context, gateways[0].bosh, "alice")
  for (const round of [0, 1, 2]) {
    const { rid } = client
    const [first, second] = [client.publication("b", 2 * round), client.publication("b", 2 * round + 1)]
    client.url = gateways[round % 2].bosh
    const early = client.send(rid + 2, "", second)
    while ((await gateways[round % 2].metric("xmpp_bosh_sessions")) === 0) await new Promise((resolve) => setTimeout(resolve, 5))
    client.url = gateways[(round + 1) % 2].bosh
    const late = client.send(rid + 1, "", first)
    for (const body of await Promise.all([early, late])) assert.doesNotMatch(body, /terminate/)
    client.rid = rid + 2
  }
  assert.deepEqual(await gateways[0].read("b"), numbers(0, 6).map(Number))
})

test("a gateway is killed while a BOSH request waits or is handled: nothing is lost and nothing comes twice", options, async (context) => {
  const { gateways, client, heard } = await subscribed(context)
  for (const round of [0, 1, 2, 3, 4, 5]) {
    const [here, other] = [round % 2, (round + 1) % 2]
    client.url = gateways[here].bosh
    heard.take(await client.next("", client.iq("get", "<ping xmlns='urn:xmpp:ping'/>")))
    // A request that waits, or one that publishes.
    const payload = round % 3 === 2 ? client.publication("b", round) : ""
    const lost = client.next("", payload).catch(() => undefined)
    const appended = gateways[other].append("a", round)
    await new Promise((resolve) => setTimeout(resolve, 4 * round))
    await gateways[here].stop()
    await appended
    await lost
    // Whatever has arrived of the response, the client sends its request again.
    client.url = gateways[other].bosh
    heard.take(await client.send(client.rid, "", payload))
    while (heard.contents.length <= round) heard.take(await client.next())
    gateways[here] = await gateways[here].again()
  }
  assert.deepEqual(heard.contents, numbers(0, 6))
  assert.deepEqual(await gateways[0].read("b"), [2, 5])
})

test("the gateway that a BOSH client has left forgets it, and a session without its client ends", options, async (context) => {
  const gateways = await gatewaysOf(context, ["--limit", "bosh_inactivity=2s"])
  const client = await Bosh.loggedIn(context, gateways[0].bosh, "alice")
  const sessions = (gateway) => gateway.metric("xmpp_bosh_sessions")
  client.url = gateways[1].bosh
  await client.next("", client.iq("get", "<ping xmlns='urn:xmpp:ping'/>"))
  assert.deepEqual([await sessions(gateways[0]), await sessions(gateways[1])], [0, 1])
  while ((await sessions(gateways[1])) > 0) await new Promise((resolve) => setTimeout(resolve, 50))
  client.url = gateways[0].bosh
  assert.match(await client.next(), /condition='item-not-found'/)
})

test("one gateway at a time is the component of a server, and another one goes on when it ends", options, async (context) => {
  const server = await Prosody.start(context)
  const gateways = await gatewaysOf(context, [...server.options, "--open"])
  const linked = async () => {
    const links = await Promise.all(gateways.map((gateway) => gateway.metric("xmpp_component_linked")))
    assert(links[0] + links[1] < 2, "two gateways are linked")
    return links.indexOf(1)
  }
  let first
  while ((first = await linked()) < 0) await sleep(20)
  const [alice, bob] = [await Client.connect(context, server, "alice"), await Client.connect(context, server, "bob")]
  await gateways[0].create("a")
  await alice.do("subscribe", { node: "a" })
  await gateways[1 - first].append("a", "1")
  assert.deepEqual(await alice.contents(1), ["1"])
  // It leaves the link to the other one at once.
  await gateways[first].drain()
  await gateways[1 - first].append("a", "2")
  assert.deepEqual(await alice.contents(2), ["1", "2"])
  gateways[first] = await gateways[first].again()
  await bob.do("subscribe", { node: "a" })
  assert.equal(await linked(), 1 - first)
  await gateways[1 - first].stop()
  await gateways[first].append("a", "3")
  assert.deepEqual(await alice.contents(3), ["1", "2", "3"])
  assert.deepEqual(await bob.contents(1), ["3"])
})
