// A gateway with providers of wakes, and keys for them.
import { execFileSync } from "node:child_process"
import { generateKeyPairSync } from "node:crypto"
import { readFileSync } from "node:fs"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { start } from "../conformance/gateway.js"

// A private key in PKCS #8.
export function key(kind = "ec") {
  const options = kind === "ec" ? { namedCurve: "P-256" } : { modulusLength: 2048 }
  return generateKeyPairSync(kind, { ...options, privateKeyEncoding: { type: "pkcs8", format: "pem" } }).privateKey
}

// A folder that is gone with the test.
export async function folderOf(context) {
  const folder = await mkdtemp(join(tmpdir(), "pollgate-"))
  context.after(() => rm(folder, { recursive: true }))
  return folder
}

// A certificate for local servers that signs itself, with its key and its file.
export function certificateOf(folder) {
  const [keyFile, file] = ["key.pem", "certificate.pem"].map((name) => join(folder, name))
  const subject = ["-subj", "/CN=fake", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1,DNS:*.googleapis.com", "-addext", "basicConstraints=critical,CA:FALSE"]
  const arguments_ = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
  execFileSync("openssl", [...arguments_, ...subject, "-keyout", keyFile, "-out", file], { stdio: "ignore" })
  return { key: readFileSync(keyFile), cert: readFileSync(file), file }
}

// Starts a gateway with apps: objects whose `key` is the content of their key file. It ends with the test.
export async function gatewayOf(context, apps, further = []) {
  const folder = await folderOf(context)
  let settings = ""
  for (const [index, { key, ...app }] of apps.entries()) {
    await writeFile(join(folder, `${index}.key`), key)
    const fields = { ...app, key_file: join(folder, `${index}.key`) }
    settings += `[[wake]]\n${Object.entries(fields).map(([name, value]) => `${name} = ${JSON.stringify(value)}\n`).join("")}`
  }
  await writeFile(join(folder, "pollgate.toml"), settings)
  const gateway = await start("127.0.0.1:0", ["--config", join(folder, "pollgate.toml"), ...further])
  context.after(() => gateway.stop())
  return gateway
}

// Sends a request, and fails with its response unless that is a success.
export async function ask(gateway, method, path, body) {
  const headers = body === undefined ? {} : { "content-type": "application/json" }
  const response = await fetch(gateway.url + path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) })
  const text = await response.text()
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`)
  return { text, json: () => JSON.parse(text), offset: response.headers.get("stream-next-offset") }
}

// Registers a device that reads `news`, which exists afterwards.
export async function register(gateway, device, channels) {
  await ask(gateway, "PUT", "/v1/stream/news", []).catch(() => {})
  await ask(gateway, "PUT", `/v1/devices/${device}`, { streams: { news: null }, channels })
}

export const append = (gateway, message) => ask(gateway, "POST", "/v1/stream/news", message)

// Waits until `condition` returns something; fails after a minute, or after `time` in milliseconds.
export async function until(what, condition, time = 60_000) {
  for (const end = Date.now() + time; Date.now() < end; await new Promise((done) => setTimeout(done, 50))) {
    const found = await condition()
    if (found) return found
  }
  throw new Error(`waited in vain: ${what}`)
}

// The value of a metric with its labels; 0 if there is none.
export async function metric(gateway, name) {
  const text = await (await fetch(`${gateway.admin}/metrics`)).text()
  const line = text.split("\n").find((line) => line.startsWith(`${name} `))
  return line ? Number(line.slice(name.length + 1)) : 0
}
