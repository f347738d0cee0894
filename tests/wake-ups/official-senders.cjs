// Sends what a gateway sends with the official libraries of Google and for Apple, and prints what they made of the answers.
const apn = require("@parse/node-apn")
const admin = require("firebase-admin")
const { readFileSync } = require("node:fs")

const { FAKE_PORT, FAKE_CERTIFICATE, APPLE_KEY, GOOGLE_KEY } = process.env

async function apple() {
  const token = { key: readFileSync(APPLE_KEY), keyId: "ABCDEFGHIJ", teamId: "TEAM123456" }
  const ca = readFileSync(FAKE_CERTIFICATE)
  const provider = new apn.Provider({ token, production: false, address: "localhost", port: Number(FAKE_PORT), ca })
  const note = new apn.Notification()
  Object.assign(note, { topic: "org.example.app", pushType: "background", contentAvailable: 1, priority: 5 })
  Object.assign(note, { collapseId: "pollgate", expiry: Math.floor(Date.now() / 1000) + 86400, payload: { pollgate: "0123456789abcdef" } })
  const { sent, failed } = await provider.send(note, ["aabb01", "dead01"])
  provider.shutdown()
  return { sent: sent.map(({ device }) => device), failed: failed.map(({ device, status, response }) => ({ device, status, reason: response?.reason })) }
}

async function google() {
  const privateKey = readFileSync(GOOGLE_KEY, "utf8")
  const account = { projectId: "p", clientEmail: "a@p.iam.gserviceaccount.com", privateKey }
  admin.initializeApp({ credential: admin.credential.cert(account) })
  const android = { priority: "high", collapseKey: "pg", ttl: 86_400_000 }
  const send = (token) => admin.messaging().send({ token, data: { pollgate: "0123456789abcdef" }, android }).catch(({ code }) => code)
  return [await send("tok"), await send("dead")]
}

Promise.all([apple(), google()]).then(([apple, google]) => {
  console.log(JSON.stringify({ apple, google }))
  process.exit(0)
})
