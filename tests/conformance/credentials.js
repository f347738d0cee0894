// With tests/over-tls, gateways speak TLS and check tokens, and all clients have one that allows everything.
import { readFileSync } from "node:fs"
import { join } from "node:path"

const folder = process.env.GATEWAY_TLS_TOKENS
const path = (name) => join(folder, name)

// `undefined` without tests/over-tls.
export const token = folder && readFileSync(path("token"), "utf8").trim()
export const certificate = folder && path("tls.pem")

// Options of mqtt.js, and arguments of mosquitto's commands.
export const ofMqttJs = token ? { username: "any", password: token, ca: readFileSync(certificate) } : {}
export const ofMosquitto = token ? ["--cafile", certificate, "-u", "any", "-P", token] : []

// What a gateway is started with, unless a test has keys of its own.
export const settings = folder ? ["--auth", path("key"), "--tls-certificate", certificate, "--tls-key", path("tls.key")] : []

// Requests to gateways carry the token, unless they have credentials of their own.
if (token) {
  const fetchAsIs = globalThis.fetch
  globalThis.fetch = (resource, init) => {
    const request = new Request(resource, init)
    if (request.url.startsWith("https://127.0.0.1:") && !request.headers.has("authorization"))
      request.headers.set("authorization", `Bearer ${token}`)
    return fetchAsIs(request)
  }
}
