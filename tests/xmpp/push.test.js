// Push (XEP-0357): stanza enables it, and is woken over a provider of the gateway when its connection is gone.
import assert from "node:assert/strict"
import { once } from "node:events"
import { writeFile } from "node:fs/promises"
import { createServer } from "node:http"
import { join } from "node:path"
import { test } from "node:test"
import { Bosh } from "./bosh.js"
import { Line } from "./line.js"
import { DOMAIN, folderOf, gatewayOf, options, stanzaOver } from "./online.js"

// A gateway with a provider, which is a server of the test. `woken` waits for the next wake.
async function wakingGateway(context) {
  const wakes = []
  const provider = createServer(async (request, response) => {
    wakes.push(JSON.parse(Buffer.concat(await request.toArray())))
    response.end()
    provider.emit("woken")
  }).listen(0, "127.0.0.1")
  await once(provider, "listening")
  context.after(() => {
    provider.close()
    provider.closeAllConnections()
  })
  const folder = await folderOf(context)
  await writeFile(join(folder, "key"), "a secret of the webhook\n")
  const url = `http://127.0.0.1:${provider.address().port}/wake`
  const config = join(folder, "pollgate.toml")
  await writeFile(config, `[[wake]]\nname = "push"\nkind = "webhook"\nkey_file = "${join(folder, "key")}"\nurl = "${url}"\n`)
  const gateway = await gatewayOf(context, ["--config", config, "--outbound-allow", "127.0.0.1"])
  gateway.wakes = wakes
  gateway.woken = async (count) => {
    while (wakes.length < count) await once(provider, "woken")
    return wakes.at(-1)
  }
  return gateway
}

// What a client tells of its channel, as stanza sends it.
const CHANNEL = [{ name: "app", value: "push" }, { name: "credential", value: "the token" }]

test("stanza is woken for a message that comes while its connection is gone, and goes on", options, async (context) => {
  const gateway = await wakingGateway(context)
  const line = await Line.to(context, gateway)
  const carol = await stanzaOver(context, line, "carol")
  const { features } = await carol.getDiscoInfo(carol.jid.split("/")[0])
  assert(features.includes("urn:xmpp:push:0"))
  await gateway.create("a")
  await carol.subscribeToNode(DOMAIN, "a")
  await carol.enableNotifications(DOMAIN, "phone", CHANNEL)
  await gateway.append("a", "1")
  await carol.notified(1)
  const again = carol.resumed()
  line.close()
  await gateway.append("a", "2")
  const { device, credential } = await gateway.woken(1)
  assert.deepEqual([device, credential], ["phone", "the token"])
  line.open()
  await again
  assert.deepEqual(await carol.notified(2), ["1", "2"])
  assert.equal(await gateway.metric('wake_polls_total{provider="webhook"}'), 1)
  await carol.disableNotifications(DOMAIN, "phone")
  assert.equal((await fetch(`${gateway.url}/v1/devices/phone`)).status, 404)
})

test("a client of BOSH that has ended its session is woken as the device that it has registered over HTTP", options, async (context) => {
  const gateway = await wakingGateway(context)
  for (const stream of ["a", "b"]) await gateway.create(stream)
  const registration = { streams: { a: null }, channels: [{ app: "push", credential: "t" }] }
  const headers = { "content-type": "application/json" }
  const registered = await fetch(`${gateway.url}/v1/devices/phone`, { method: "PUT", headers, body: JSON.stringify(registration) })
  assert.equal(registered.status, 201)
  const client = await Bosh.loggedIn(context, gateway.bosh, "alice")
  await client.subscribe("b")
  const enabled = await client.next("", `<iq xmlns='jabber:client' type='set' id='p'><enable xmlns='urn:xmpp:push:0' jid='${DOMAIN}' node='phone'/></iq>`)
  assert.match(enabled, /type=["']result/)
  const { streams } = await (await fetch(`${gateway.url}/v1/devices/phone`)).json()
  assert.deepEqual(Object.keys(streams).sort(), ["a", "b"])
  await client.next(" type='terminate'")
  await gateway.append("b", "1")
  assert.equal((await gateway.woken(1)).device, "phone")
})
