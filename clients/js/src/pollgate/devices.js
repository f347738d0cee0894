// Registers the device of a client, so that the gateway wakes it by push or SMS while it is not connected. Requests are repeated
// until the gateway has answered; each replaces what the one before has said, so that a repetition does no harm.

/** @import { DeviceRegistration, Settings, WakeApp } from "../../pollgate.d.ts" */
/** @import { Transport } from "./http.js" */

import { contentTypeOf, GatewayError, isFinalForAppend, refusal } from "./http.js"
import { after, Backoff, sleep, unlessAborted } from "./platform.js"
import { checkNames, parseStreams } from "./settings.js"

/** How long a response is waited for, in seconds. */
const ANSWER_TIMEOUT = 30

/** @satisfies {Record<keyof DeviceRegistration, true>} */
const REGISTRATION = {
  id: true, streams: true, pushSubscription: true, app: true, channels: true, quiet: true, escalateAfter: true, expiresIn: true,
}

/** The devices of one gateway. */
export class Devices {
  #transport
  #settings
  #stop = new AbortController()

  /**
   * @param {Transport} transport
   * @param {Settings} settings
   */
  constructor(transport, settings) {
    this.#transport = transport
    this.#settings = settings
  }

  /**
   * The apps with which the gateway can wake a device.
   * @returns {Promise<WakeApp[]>}
   */
  async apps() {
    const response = await this.#send("GET", "v1/devices")
    const { apps } = await response.json()
    return apps.map((/** @type {any} */ { app, provider, credential, public_key: publicKey }) =>
      ({ app, provider, credential, ...(publicKey && { publicKey }) }))
  }

  /** @param {DeviceRegistration} registration */
  async register(registration) {
    checkNames(registration, REGISTRATION)
    const { id, streams, quiet, escalateAfter, expiresIn } = registration
    const body = {
      streams: offsetsOf(streams),
      channels: [...(await this.#pushChannel(registration)), ...(registration.channels ?? [])],
      quiet: quiet && { from: quiet.from, to: quiet.to, utc_offset: quiet.utcOffset },
      escalate_after: escalateAfter,
      expires_in: expiresIn,
    }
    await this.#send("PUT", targetOf(id), JSON.stringify(body))
  }

  /**
   * Forgets a device. That the gateway does not know it is no error.
   * @param {string} id
   */
  async unregister(id) {
    await this.#send("DELETE", targetOf(id)).catch((error) => {
      if (!(error instanceof GatewayError && error.status === 404)) throw error
    })
  }

  /** Rejects what was not answered yet. */
  close() {
    this.#stop.abort(new Error("closed"))
  }

  /**
   * The channel of a push subscription, if there is one. Without the name of an app it is that of the key that the subscription
   * was made with, else the first one for Web Push.
   * @param {DeviceRegistration} registration
   */
  async #pushChannel({ pushSubscription, app }) {
    if (!pushSubscription) return []
    const credential = "toJSON" in pushSubscription ? pushSubscription.toJSON() : pushSubscription
    if (app !== undefined) return [{ app, credential }]
    const apps = (await this.apps()).filter(({ credential }) => credential === "web-push")
    const key = "options" in pushSubscription ? base64url(pushSubscription.options.applicationServerKey) : undefined
    const found = apps.find(({ publicKey }) => publicKey === key) ?? apps[0]
    if (!found) throw new Error("the gateway has no app for Web Push, so that it cannot wake a browser")
    return [{ app: found.app, credential }]
  }

  /**
   * Sends a request until it succeeds or is refused for good.
   * @param {string} method
   * @param {string} path
   * @param {string} [body]
   */
  async #send(method, path, body) {
    const target = new URL(path, this.#transport.base).href
    const backoff = new Backoff(this.#settings)
    for (let renewed = false; ; ) {
      const response = await this.#attempt(method, target, body)
      const isAnswer = response && (response.status === 204 || contentTypeOf(response) === "application/json")
      if (response?.ok && isAnswer) return response
      const failure = response && (await refusal(response))
      if (failure && !renewed && this.#transport.renews(failure)) {
        renewed = true
        continue
      }
      if (failure && isFinalForAppend(failure)) throw new GatewayError(failure.status ?? 0, failure.problem)
      const wait = failure?.retryAfter === undefined ? backoff.next() : Math.min(failure.retryAfter, this.#settings.reprobeMax)
      await sleep(wait, this.#stop.signal)
    }
  }

  /**
   * Sends a request once. Returns `null` if there is no response.
   * @param {string} method
   * @param {string} target
   * @param {string | undefined} body
   */
  async #attempt(method, target, body) {
    const { signal } = this.#stop
    signal.throwIfAborted()
    const callersHeaders = await unlessAborted(this.#transport.headers(), signal)
    if (!callersHeaders) throw signal.reason
    const leave = new AbortController()
    const timer = after(ANSWER_TIMEOUT, () => leave.abort())
    const closed = () => leave.abort()
    signal.addEventListener("abort", closed, { once: true })
    const headers = body === undefined ? undefined : { "content-type": "application/json" }
    try {
      return await this.#transport.fetch(target, callersHeaders, { method, body, headers, signal: leave.signal })
    } catch {
      return null
    } finally {
      clearTimeout(timer)
      signal.removeEventListener("abort", closed)
    }
  }
}

/**
 * Checks the id of a device.
 * @param {string} id
 */
export function parseDevice(id) {
  if (typeof id !== "string" || !id) throw new TypeError("the id of a device is a string that is not empty")
  return id
}

/** @param {string} id */
const targetOf = (id) => `v1/devices/${encodeURIComponent(parseDevice(id))}`

/**
 * The streams of a device with their offsets; `null` is what the gateway knows.
 * @param {DeviceRegistration["streams"]} streams
 */
function offsetsOf(streams) {
  const isList = typeof streams === "string" || Array.isArray(streams)
  const names = parseStreams(isList ? streams : Object.keys(streams))
  return isList ? Object.fromEntries(names.map((name) => [name, null])) : streams
}

/**
 * Bytes as the gateway writes a key.
 * @param {ArrayBuffer | null} bytes
 */
const base64url = (bytes) =>
  btoa(String.fromCharCode(...new Uint8Array(bytes ?? new ArrayBuffer(0))))
    .replace(/=+$/, "").replaceAll("+", "-").replaceAll("/", "_")
