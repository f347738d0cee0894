// SMS through the message centre of another implementation of SMPP.
import assert from "node:assert/strict"
import { once } from "node:events"
import { test } from "node:test"
import smpp from "smpp"
import { append, ask, gatewayOf, metric, register, until } from "./world.js"

const THROTTLED = smpp.ESME_RTHROTTLED
const INVALID_NUMBER = smpp.ESME_RINVDSTADR

// The state in the receipt of a message: numbers that end in 44 are not reached, and those that end in 55 not the first time.
const undelivered = (number, nth) => number.endsWith("44") ? "UNDELIV" : number.endsWith("55") && nth === 1 ? "EXPIRED" : undefined

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
      const nth = messages.filter((message) => message.destination_addr === number).length
      const state = undelivered(number, nth) ?? "DELIVRD"
      const receipt = `id:${messages.length} sub:001 dlvrd:001 submit date:2611290000 done date:2611290001 stat:${state} err:000 text:`
      session.deliver_sm({ source_addr: number, source_addr_ton: 1, destination_addr: pdu.source_addr, esm_class: 4, short_message: receipt })
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

const receipts = (gateway, state) => metric(gateway, `pollgate_wake_receipts_total{provider="sms",state="${state}"}`)

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
  await until("receipts are counted", async () => (await receipts(gateway, "delivered")) === 2)
  // That the message centre refuses a number removes nothing.
  const { channels } = (await ask(gateway, "GET", "/v1/devices/unknown")).json()
  assert.equal(channels[0].state, "active")
})

test("a number that is not reached twice is gone, and one that expires gets another SMS", { timeout: 240_000 }, async (context) => {
  const centre = await messageCentre(context)
  const gateway = await gatewayOf(context, [app(centre, { text: "News", min_interval: "1s" })])
  const numbers = { gone: "+31600000044", off: "+31600000055" }
  for (const [device, credential] of Object.entries(numbers)) await register(gateway, device, [{ app: "sms", credential }])
  const channels = async (device) => (await ask(gateway, "GET", `/v1/devices/${device}`)).json().channels
  await append(gateway, 1)
  await until("the receipts have arrived", async () =>
    (await receipts(gateway, "undeliverable")) === 1 && (await receipts(gateway, "expired")) === 1)
  await until("the receipt is noted", async () => (await channels("gone"))[0].last_error === "undeliverable")
  assert.equal((await channels("gone"))[0].state, "active")
  // A poll ends the pause of a silent device; it leaves something to read.
  await ask(gateway, "GET", "/v1/stream/news?offset=-1&client=gone")
  await append(gateway, 2)
  await until("the number is not reached again", async () => (await receipts(gateway, "undeliverable")) === 2)
  // Once another SMS is delivered, the message centre is right about the number. That is the one after the pause of a minute.
  await until("the other phone has it", async () => (await receipts(gateway, "delivered")) >= 1, 150_000)
  await until("the number is removed", async () => (await channels("gone")).length === 0)
  const removed = await until("the application is told", () =>
    ask(gateway, "GET", "/v1/stream/devices/removed?offset=-1").then((told) => told.json(), () => undefined))
  assert.deepEqual(removed.map(({ device, reason }) => [device, reason]), [["gone", "gone"]])
  assert.equal((await channels("off"))[0].last_error, null)
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
