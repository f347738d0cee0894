// pollgate's client for browsers and Node. It reads many streams in the best delivery form that the network lets through, and
// publishes so that a repeated request does no harm. No dependencies and no build step; the types are in pollgate.d.ts.
//
// Modules in reading order, all in ./pollgate:
//
//   settings             what can be set
//   subscription         hands messages to the caller and keeps the resume token
//   shared-connection    one connection for all subscriptions, also those of other tabs (tabs, shared-position)
//   reader               performs what the policy decides
//   policy               which form is used and when, without IO (fallback, network-memory)
//   forms                the wire: short poll, long poll, SSE, NDJSON, WebSocket
//   publisher            appends and repeats them
//   devices              registers a device, so that the gateway wakes it
//   memory-store         keeps what was learned of networks
//   http, platform       requests and errors; clock and timers
//
// All times are seconds.

/** @import { ClientOptions, DeviceRegistration, Handler, PublishOptions, SubscribeOptions } from "../pollgate.d.ts" */
/** @import { Subscription as TypedSubscription } from "../pollgate.d.ts" */

import { Devices, parseDevice } from "./pollgate/devices.js"
import { Transport } from "./pollgate/http.js"
import { MemoryStore } from "./pollgate/memory-store.js"
import { canShare } from "./pollgate/platform.js"
import { Publisher } from "./pollgate/publisher.js"
import { checkOptions, parseForms, parseSettings, parseStreams, parseUrl } from "./pollgate/settings.js"
import { SharedConnection } from "./pollgate/shared-connection.js"
import { Subscription } from "./pollgate/subscription.js"

export { GatewayError } from "./pollgate/http.js"
export { HeartbeatSearch } from "./pollgate/network-memory.js"
export { Policy } from "./pollgate/policy.js"
export { QueueFullError } from "./pollgate/publisher.js"
export { FORMS, SETTINGS } from "./pollgate/settings.js"

/** A client of one gateway. Its events are `form`, `gap`, `missing`, `forbidden`, `closed`, `restart`, `not_gateway` and `error`. */
export class Client extends EventTarget {
  #connection
  #publisher
  #devices

  /**
   * @param {string | URL} url
   * @param {ClientOptions} options
   */
  constructor(url, options = {}) {
    super()
    const base = parseUrl(url)
    checkOptions(options)
    const settings = parseSettings(options.settings)
    const transport = new Transport(base, options)
    const webSocket = Boolean(transport.WebSocket)
    const forms = parseForms(options.forms, { webSocket, headers: transport.hasHeaders })
    const emit = (/** @type {string} */ name, /** @type {unknown} */ detail) =>
      void this.dispatchEvent(new CustomEvent(name, { detail }))
    const store = new MemoryStore(options, base, forms.filter((form) => webSocket || form !== "websocket"))
    const policy = { forms, settings, memory: store.load(), network: options.network, webSocket }
    const share = options.share ?? canShare()
    this.#connection = new SharedConnection({ transport, policy, emit, store, share })
    this.#publisher = new Publisher(transport, settings)
    this.#devices = new Devices(transport, settings)
  }

  /**
   * Reads streams. Without a handler the subscription is iterated over.
   * @template [T=any]
   * @overload
   * @param {string | string[]} streams
   * @param {Handler<T>} [handler]
   * @returns {TypedSubscription<T>}
   */
  /**
   * @template [T=any]
   * @overload
   * @param {string | string[]} streams
   * @param {SubscribeOptions} options
   * @param {Handler<T>} [handler]
   * @returns {TypedSubscription<T>}
   */
  /**
   * @param {string | string[]} streams
   * @param {SubscribeOptions | Handler<any>} options
   * @param {Handler<any>} [handler]
   */
  subscribe(streams, options = {}, handler) {
    if (typeof options === "function") [options, handler] = [{}, options]
    return new Subscription(this.#connection, parseStreams(streams), options, handler)
  }

  /**
   * Appends one message. Resolves with the offset behind it once it is stored. Rejects if it is refused for good, or with a
   * `QueueFullError` if too much waits.
   * @param {string} stream
   * @param {unknown} data
   * @param {PublishOptions} options
   */
  publish(stream, data, options = {}) {
    return this.#publisher.publish(stream, data, options)
  }

  /** Resolves when at most half of what may wait to be published does. */
  room() {
    return this.#publisher.room()
  }

  /** The apps with which the gateway can wake a device. */
  wakeApps() {
    return this.#devices.apps()
  }

  /**
   * Registers this client as a device, which the gateway wakes when something is new and the device is not connected. From now on
   * its reads have the id of the device, so that the gateway knows what it has read.
   * @param {DeviceRegistration} registration
   */
  async registerDevice(registration) {
    this.#connection.setDevice(parseDevice(registration.id))
    await this.#devices.register(registration)
  }

  /**
   * Forgets a device: it is not woken any more.
   * @param {string} id
   */
  async unregisterDevice(id) {
    await this.#devices.unregister(id)
    this.#connection.setDevice(undefined)
  }

  /**
   * The network is another one: what is known of it under that label is used, and better forms are tried.
   * @param {string} [label]
   */
  networkChanged(label) {
    this.#connection.networkChanged(label)
  }

  /** What was learned of networks, as JSON, for the constructor of a later client. */
  memory() {
    return this.#connection.memory()
  }

  /** Ends all subscriptions, and what was not acknowledged or answered yet is rejected. */
  close() {
    this.#connection.close()
    this.#publisher.close()
    this.#devices.close()
  }
}
