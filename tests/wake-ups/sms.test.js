// SMS through the message centre of another implementation of SMPP.
import assert from "node:assert/strict"
import { once } from "node:events"
import { test } from "node:test"
import smpp from "smpp"
import { append, ask, gatewayOf, metric, register, until } from "./world.js"

const THROTTLED = smpp.ESME_RTHROTTLED
const INVALID_NUMBER = smpp.ESME_RINVDSTADR

// A message centre that sends a receipt for each message. It throttles the first message to a number that ends in 58, and does
// not know numbers that end in 11.
async function messageCentre(context) {
  const [binds, messages] = [[], []]
  const throttled = new Set()
  const sessions = new Set()
  const server = smpp.createServer({}, (session) => {
    sessions.add(session)
    session.on("error", () => {})
    session.on("bind_transceiver", (pdu) => {
      binds.push(pdu)
      session.send(pdu.response({ command_status: pdu.password === "pw" ? 0 : smpp.ESME_RINVPASWD }))
    })
    session.on("submit_sm", (pdu) => {
      const number = pdu.destination_addr
      if (number.endsWith("58") && !throttled.has(number)) {
        throttled.add(number)
        return session.send(pdu.response({ command_status: THROTTLED }))
      }
      if (number.endsWith("11")) return session.send(pdu.response({ command_status: INVALID_NUMBER }))
      messages.push(pdu)
      // The receipt may come before the response.
      const receipt = `id:${messages.length} sub:001 dlvrd:001 submit date:2611290000 done date:2611290001 stat:DELIVRD err:000 text:`
      session.deliver_sm({ source_addr: number, destination_addr: pdu.source_addr, esm_class: 4, short_message: receipt })
      session.send(pdu.response({ message_id: `${messages.length}` }))
    })
    session.on("deliver_sm_resp", (pdu) => messages.receipts.push(pdu.command_status))
    session.on("enquire_link", (pdu) => session.send(pdu.response()))
    session.on("unbind", (pdu) => session.send(pdu.response()))
  })
  messages.receipts = []
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  context.after(() => {
    sessions.forEach((session) => session.destroy())
    server.close()
  })
  return { address: `127.0.0.1:${server.address().port}`, binds, messages }
}

const app = (centre, more) => ({
  name: "sms", kind: "sms", url: centre.address, id: "gw", topic: "POLL", key: "pw\n", prefixes: ["+31"], ...more,
})

const verdicts = (gateway, verdict) => metric(gateway, `pollgate_wakes_total{provider="sms",verdict="${verdict}"}`)

test("phones get one SMS, with a receipt, and throttling loses none", { timeout: 180_000 }, async (context) => {
  const centre = await messageCentre(context)
  const gateway = await gatewayOf(context, [app(centre, { text: "News! {wake}", ttl: "1h" })])
  const numbers = { one: "+31600000001", throttled: "+31600000058", unknown: "+31600000011" }
  for (const [device, credential] of Object.entries(numbers)) await register(gateway, device, [{ app: "sms", credential }])
  const refused = await register(gateway, "abroad", [{ app: "sms", credential: "+88213000001" }]).catch((error) => `${error}`)
  assert.match(refused, /400.*not allowed/)

  await append(gateway, 1)
  await until("two phones got an SMS", () => centre.messages.length >= 2)
  await append(gateway, 2)
  assert.equal(centre.binds.length, 1)
  assert.deepEqual([centre.binds[0].system_id, centre.binds[0].interface_version], ["gw", 0x34])
  const [first] = centre.messages
  assert.deepEqual(centre.messages.map(({ destination_addr }) => destination_addr), ["31600000001", "31600000058"])
  assert.deepEqual([first.source_addr, first.source_addr_ton, first.dest_addr_ton, first.dest_addr_npi], ["POLL", 5, 1, 1])
  assert.equal(first.registered_delivery, 1)
  assert.match(first.short_message.message, /^News! [0-9a-f]{16}$/)
  await until("receipts are acknowledged", () => centre.messages.receipts.length >= 2)
  assert.deepEqual(new Set(centre.messages.receipts), new Set([0]))
  await until("all answers are counted", async () =>
    (await verdicts(gateway, "ok")) === 2 && (await verdicts(gateway, "slow")) === 1 && (await verdicts(gateway, "bad")) === 1)
  // A number is never removed.
  const { channels } = (await ask(gateway, "GET", "/v1/devices/unknown")).json()
  assert.equal(channels[0].state, "active")
})

test("an app on the phone gets a data SMS on its port", { timeout: 120_000 }, async (context) => {
  const centre = await messageCentre(context)
  const gateway = await gatewayOf(context, [app(centre, { port: 16100 })])
  await register(gateway, "phone", [{ app: "sms", credential: "+31600000001" }])
  await append(gateway, 1)
  await until("the phone got an SMS", () => centre.messages.length)
  const [message] = centre.messages
  assert.deepEqual([message.esm_class, message.data_coding], [0x40, 4])
  assert.match(message.short_message.message.toString(), /^pollgate:[0-9a-f]{16}$/)
  const [header] = message.short_message.udh
  assert.equal(Buffer.from(header).toString("hex"), "05043ee43ee4")
})

test("a wrong password is told to the operator and to nobody else", { timeout: 120_000 }, async (context) => {
  const centre = await messageCentre(context)
  const gateway = await gatewayOf(context, [app(centre, { text: "News", key: "other" })])
  await register(gateway, "phone", [{ app: "sms", credential: "+31600000001" }])
  await append(gateway, 1)
  await until("the settings are found wrong", async () => (await verdicts(gateway, "config")) >= 1)
  assert.equal(centre.messages.length, 0)
})
