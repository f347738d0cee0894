// A phone and its push service in one program, for trying wakes on one machine: registers a device at a gateway, sleeps, and polls
// when it is woken. Needs Node 20 and no packages.
//
//   node phone.mjs GATEWAY STREAM APP
import { createDecipheriv, createECDH, createHmac, randomBytes } from "node:crypto"
import { createServer } from "node:http"

const [gateway, stream, app] = process.argv.slice(2)

// What a browser makes when a page subscribes: a key pair and a secret.
const keys = createECDH("prime256v1")
keys.generateKeys()
const secret = randomBytes(16)

const hmac = (key, ...parts) => createHmac("sha256", key).update(Buffer.concat(parts.map((part) => Buffer.from(part)))).digest()

// Decrypts a push message (RFC 8291; one record of RFC 8188).
function decrypted(body) {
  const [salt, sender] = [body.subarray(0, 16), body.subarray(21, 86)]
  const shared = hmac(secret, keys.computeSecret(sender))
  const input = hmac(shared, "WebPush: info\0", keys.getPublicKey(), sender, [1])
  const pseudorandom = hmac(salt, input)
  const key = hmac(pseudorandom, "Content-Encoding: aes128gcm\0", [1]).subarray(0, 16)
  const nonce = hmac(pseudorandom, "Content-Encoding: nonce\0", [1]).subarray(0, 12)
  const cipher = createDecipheriv("aes-128-gcm", key, nonce)
  cipher.setAuthTag(body.subarray(-16))
  const text = Buffer.concat([cipher.update(body.subarray(86, -16)), cipher.final()])
  return text.subarray(0, text.lastIndexOf(2)).toString()
}

async function ask(path, options = {}) {
  const response = await fetch(gateway + path, options)
  if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`)
  return response
}

// Reads everything new, and once more: the offset of a poll is what says that the messages before it have arrived.
async function poll(offset) {
  const path = (offset) => `/v1/stream/${stream}?client=phone&offset=${offset}`
  const response = await ask(path(offset))
  console.log("read", await response.text())
  await ask(path(response.headers.get("stream-next-offset")))
}

const service = createServer(async (request, response) => {
  const parts = []
  for await (const part of request) parts.push(part)
  response.writeHead(201, { location: "/m/1" }).end()
  const { pollgate } = JSON.parse(decrypted(Buffer.concat(parts)))
  console.log("woken", pollgate.length === 16 ? "by a wake without content" : pollgate)
  const device = await (await ask("/v1/devices/phone")).json()
  await poll(device.streams[stream])
  service.close()
}).listen(0, "127.0.0.1", async () => {
  const endpoint = `http://127.0.0.1:${service.address().port}/push`
  const subscription = { endpoint, keys: { p256dh: keys.getPublicKey("base64url"), auth: secret.toString("base64url") } }
  const body = JSON.stringify({ streams: { [stream]: "now" }, channels: [{ app, credential: subscription }] })
  await ask("/v1/devices/phone", { method: "PUT", headers: { "content-type": "application/json" }, body })
  console.log("asleep")
})
