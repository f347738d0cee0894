// The official library of Google and the usual one for Apple accept the fakes; then the requests of the gateway to the same fakes
// are compared with theirs, field by field.
import assert from "node:assert/strict"
import { execFile } from "node:child_process"
import { writeFile } from "node:fs/promises"
import { join } from "node:path"
import { test } from "node:test"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { googleAndApple } from "./google-and-apple.js"
import { append, ask, certificateOf, folderOf, gatewayOf, key, register, until } from "./world.js"

const file = (name) => fileURLToPath(new URL(name, import.meta.url))
const decoded = (token) => token.split(".").slice(0, 2).map((part) => JSON.parse(Buffer.from(part, "base64url")))

// What two senders may differ in.
const OWN_FIELDS = new Set([
  "user-agent", "host", "connection", "accept", "accept-encoding", "content-length", "x-goog-api-client", "x-firebase-client",
  "access_token_auth", "x-goog-user-project", "transfer-encoding", "date",
])

// The fields of a request that mean something to the provider, without what differs each time.
function fields({ headers }) {
  const entries = Object.entries(headers).filter(([name]) => !OWN_FIELDS.has(name))
  return Object.fromEntries(entries.map(([name, value]) => {
    if (name === "authorization") return [name, value.split(" ")[0].toLowerCase()]
    if (name === "content-type") return [name, value.split(";")[0].toLowerCase()]
    return [name, name === "apns-expiration" ? Math.sign(value) : value]
  }))
}

// A body without the number of the wake.
const content = ({ body }) => JSON.parse(body.replace(/[0-9a-f]{16}/, "WAKE"))

test("requests to FCM and APNs equal those of the official senders", { timeout: 180_000 }, async (context) => {
  const folder = await folderOf(context)
  const certificate = certificateOf(folder)
  const fake = await googleAndApple(context, certificate)
  const [appleKey, googleKey] = [key("ec"), key("rsa")]
  const [APPLE_KEY, GOOGLE_KEY] = [join(folder, "apple.p8"), join(folder, "google.pem")]
  await Promise.all([writeFile(APPLE_KEY, appleKey), writeFile(GOOGLE_KEY, googleKey)])
  const variables = { FAKE_PORT: `${fake.port}`, FAKE_CERTIFICATE: certificate.file, APPLE_KEY, GOOGLE_KEY, NODE_EXTRA_CA_CERTS: certificate.file }
  const sender = promisify(execFile)(process.execPath, ["--require", file("to-the-fake.cjs"), file("official-senders.cjs")], {
    env: { ...process.env, ...variables },
  })
  const said = JSON.parse((await sender).stdout)
  assert.deepEqual(said.apple, { sent: ["aabb01"], failed: [{ device: "dead01", status: 410, reason: "Unregistered" }] })
  assert.deepEqual(said.google, ["projects/p/messages/1", "messaging/registration-token-not-registered"])
  const official = fake.requests.splice(0)

  const url = `https://localhost:${fake.port}`
  const account = {
    type: "service_account", project_id: "p", client_email: "a@p.iam.gserviceaccount.com", private_key: googleKey,
    token_uri: "https://oauth2.googleapis.com/token",
  }
  const common = { base_url: url, ca_file: certificate.file }
  const gateway = await gatewayOf(context, [
    { name: "google", kind: "fcm", key: JSON.stringify(account), token_url: `${url}/token`, ...common },
    { name: "apple", kind: "apns", key: appleKey, key_id: "ABCDEFGHIJ", account: "TEAM123456", topic: "org.example.app", ...common },
  ])
  const devices = { android: ["google", "tok"], iphone: ["apple", "aabb01"], lost: ["google", "dead"], sold: ["apple", "dead01"] }
  for (const [device, [app, credential]] of Object.entries(devices)) await register(gateway, device, [{ app, credential }])
  await append(gateway, 1)
  const own = await until("the gateway has woken four devices", () => fake.requests.length >= 5 && fake.requests)
  const of = (requests, part) => requests.find(({ url }) => url.includes(part))

  for (const part of ["/3/device/aabb01", "/3/device/dead01", "/messages:send"]) {
    const [theirs, ours] = [of(official, part), of(own, part)]
    assert.equal(ours.url, theirs.url)
    assert.equal(ours.method, theirs.method)
    const isApple = part.startsWith("/3/device/")
    // Apple's documentation asks for no type of the content, and the library sends none; the gateway says what it sends.
    const type = isApple ? { "content-type": "application/json" } : {}
    assert.deepEqual(fields(ours), { ...type, ...fields(theirs) }, part)
    if (!isApple) continue
    assert.equal(ours.version, "2.0")
    assert.ok(Math.abs(ours.headers["apns-expiration"] - theirs.headers["apns-expiration"]) < 600)
  }
  const message = (requests, token) => content(requests.find(({ body }) => body.includes(`"${token}"`)))
  assert.deepEqual(message(own, "tok"), message(official, "tok"))
  assert.deepEqual(message(own, "dead"), message(official, "dead"))
  assert.deepEqual(content(of(own, "/3/device/aabb01")), content(of(official, "/3/device/aabb01")))

  // The tokens with which both introduce themselves.
  const bearer = (request) => decoded(request.headers.authorization.split(" ")[1])
  const [[theirHeader, theirClaims], [header, claims]] = [of(official, "/3/device/aabb01"), of(own, "/3/device/aabb01")].map(bearer)
  assert.deepEqual([header.alg, header.kid, claims.iss], [theirHeader.alg, theirHeader.kid, theirClaims.iss])
  assert.ok(Math.abs(claims.iat - theirClaims.iat) < 3600)
  const grants = [official, own].map((requests) => new URLSearchParams(of(requests, "token").body))
  assert.equal(grants[1].get("grant_type"), grants[0].get("grant_type"))
  const [[, their], [, ours]] = grants.map((grant) => decoded(grant.get("assertion")))
  assert.equal(ours.iss, their.iss)
  assert.ok(their.scope.split(" ").includes(ours.scope), their.scope)
  assert.ok(ours.exp - ours.iat <= 3600)

  // Both dead tokens are gone once their app has woken another device.
  for (const device of ["lost", "sold"]) {
    await until(`${device} is gone`, async () => {
      const { channels } = (await ask(gateway, "GET", `/v1/devices/${device}`)).json()
      return channels.length === 0 || channels[0].state === "gone"
    })
  }
  for (const device of ["android", "iphone"]) {
    const { channels } = (await ask(gateway, "GET", `/v1/devices/${device}`)).json()
    assert.deepEqual([channels[0].state, channels[0].last_error], ["active", null])
  }
})
