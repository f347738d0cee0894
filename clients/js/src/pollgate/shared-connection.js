// The connection that all subscriptions of a client share, and with them those of other tabs of the same origin.
//
// One tab leads: it has the reader, and sends each envelope to the other tabs, the followers. A follower tells the leader what
// its subscriptions want. Every tab keeps the position of the connection, so that each can go on if the leader is gone.

/** @import { Memory, PolicyOptions, Settings } from "../../pollgate.d.ts" */
/** @import { Envelope, ReadRequest } from "./forms.js" */
/** @import { Transport } from "./http.js" */
/** @import { MemoryStore } from "./memory-store.js" */
/** @import { PlacedBatch, Snapshot } from "./shared-position.js" */
/** @import { Subscription } from "./subscription.js" */

import { poll } from "./forms.js"
import { GatewayError } from "./http.js"
import { NetworkMemory } from "./network-memory.js"
import { identifier, seconds } from "./platform.js"
import { Policy } from "./policy.js"
import { Reader } from "./reader.js"
import { STREAMS_MAX } from "./settings.js"
import { SharedPosition } from "./shared-position.js"
import { TabGroup } from "./tabs.js"

/** After this silence, in seconds, a follower asks whether the leader is alive; after twice of it, the follower takes the lead. */
const SILENCE_MAX = 15

/** How often a follower looks how long the leader has been silent, in milliseconds. */
const WATCH_INTERVAL = 5000

/** How long a new leader keeps the streams of its predecessor, until the other tabs have said what they want; milliseconds. */
const TAKEOVER_GRACE = 3000

/** What a subscription wants: `attached` if it takes envelopes, `waiting` if it waits to be admitted. */
/** @typedef {{ id: string, streams: string[], resume: string | null, attached: boolean, waiting: boolean }} Want */

/**
 * What tabs say to each other. Followers send `want`, `unwant`, `network` and `ping`, the leader sends the others.
 * @typedef {{ type: "want" } & Want
 *   | { type: "unwant", id: string } | { type: "network", label?: string } | { type: "device", device?: string } | { type: "ping" } | { type: "pong" }
 *   | { type: "lead" } | { type: "state", id: string, fresh: string[], shared: Snapshot, memory: Memory }
 *   | { type: "envelope", batches: PlacedBatch[], resume?: string, resumeDelta?: string, asked?: string[] }
 *   | { type: "event", name: string, detail: unknown } | { type: "refuse", id: string }
 *   | { type: "fatal", status?: number, problem?: GatewayError["problem"], message: string }} TabMessage
 */

/**
 * @typedef {object} SharedConnectionOptions
 * @property {Transport} transport
 * @property {PolicyOptions & { settings: Settings }} policy
 * @property {(name: string, detail: any) => void} emit Takes the client's events.
 * @property {MemoryStore} store Keeps what was learned.
 * @property {boolean | string} share Whether tabs share the connection, or the name of the group of tabs that do.
 */

/** One connection for many subscriptions, in this tab or in another one. */
export class SharedConnection {
  /** Where the connection is, as far as this tab knows. */
  shared = new SharedPosition()
  settings
  emit
  #transport
  #policyOptions
  #share
  #store
  /** @type {TabGroup | null} */
  #tabs = null
  #started = false
  #leading = false
  /** @type {string | null} The tab that leads, if it is another one. */
  #leader = null
  /** @type {Policy | null} */
  #policy = null
  /** @type {Reader | null} */
  #reader = null
  /** What was learned of networks, by this tab or the leader. */
  #memory
  /** @type {Map<string, Subscription>} The subscriptions of this tab. */
  #subscriptions = new Map()
  /** @type {Map<string, { peer?: string, streams: string[] }>} In the leader: what the subscriptions of all tabs read. */
  #wants = new Map()
  #client = identifier()
  /** @type {string | undefined} The registered device that the tabs are. */
  #device
  #closed = false
  /** When the leader was heard last. */
  #heard = seconds()
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #watch
  #online = () => this.networkChanged()

  /** @param {SharedConnectionOptions} options */
  constructor({ transport, policy, emit, store, share }) {
    this.#transport = transport
    this.#policyOptions = policy
    this.#memory = policy.memory
    this.#share = share
    this.#store = store
    this.settings = policy.settings
    this.emit = emit
  }

  /**
   * A subscription has begun. The first one starts the client.
   * @param {Subscription} subscription
   */
  add(subscription) {
    if (this.#closed) throw new Error("the client is closed")
    this.#subscriptions.set(subscription.id, subscription)
    if (this.#started) return
    this.#started = true
    // Later, so that listeners hear of the first form that are added right behind `subscribe`.
    queueMicrotask(() => this.#start())
  }

  #start() {
    if (this.#closed) return
    if (!this.#share) return this.#lead()
    const name = ["pollgate", this.#transport.base.href, this.#share === true ? "" : this.#share].join(" ")
    this.#tabs = new TabGroup(name, {
      lead: () => this.#lead(),
      resign: () => this.#resign(),
      message: (message) => this.#onMessage(message),
    })
    this.#watch = setInterval(() => this.#watchLeader(), WATCH_INTERVAL)
  }

  /**
   * A subscription has caught up and asks to be admitted.
   * @param {Subscription} subscription
   */
  attach(subscription) {
    if (this.#leading) return this.#admit(subscription.want(), this.#tabs?.id)
    this.#heard = Math.min(this.#heard, seconds() - SILENCE_MAX)
    this.#tabs?.post({ type: "want", ...subscription.want() })
  }

  /**
   * A subscription takes no envelopes for now.
   * @param {Subscription} subscription
   */
  detach({ id }) {
    if (this.#leading) this.#drop(id)
    else this.#tabs?.post({ type: "unwant", id })
  }

  /**
   * A subscription has ended.
   * @param {Subscription} subscription
   */
  remove(subscription) {
    this.#subscriptions.delete(subscription.id)
    this.detach(subscription)
  }

  /**
   * One short poll beside the shared connection.
   * @param {ReadRequest} request
   * @param {AbortSignal} signal
   */
  poll(request, signal) {
    return poll(this.#transport, request, signal)
  }

  /** @param {string} [label] */
  networkChanged(label) {
    this.#policyOptions.network = label ?? this.#policyOptions.network
    if (this.#reader) this.#reader.networkChanged(label)
    else this.#tabs?.post({ type: "network", label })
  }

  /**
   * Reads are those of this device from now on, in all tabs.
   * @param {string | undefined} device
   */
  setDevice(device) {
    this.#becomeDevice(device)
    this.#tabs?.post({ type: "device", device })
  }

  memory() {
    return this.#policy?.memory() ?? new NetworkMemory(this.#memory).toJSON()
  }

  close() {
    this.#closed = true
    for (const subscription of this.#subscriptions.values()) subscription.close()
    clearInterval(this.#watch)
    this.#resign()
    this.#tabs?.close()
  }

  /** @param {string | undefined} device */
  #becomeDevice(device) {
    if (device === this.#device) return
    this.#device = device
    this.#reader?.restart()
  }

  // -- As the leader.

  #lead() {
    if (this.#closed) return
    this.#leading = true
    this.#wants.clear()
    const emit = (/** @type {string} */ name, /** @type {unknown} */ detail) => {
      this.#tabs?.post({ type: "event", name, detail })
      this.emit(name, detail)
    }
    this.#policy = new Policy({ ...this.#policyOptions, memory: this.#memory, emit })
    this.#reader = new Reader({
      transport: this.#transport,
      policy: this.#policy,
      request: () => ({ streams: this.#wantedStreams(), resume: this.shared.start, client: this.#client, device: this.#device }),
      onEnvelope: (envelope, asked) => this.#onEnvelope(envelope, asked),
      onLearned: () => this.#store.save(this.memory()),
      onFatal: (error) => this.#onFatal(error),
    })
    globalThis.window?.addEventListener("online", this.#online)
    if (this.shared.streams.size) {
      this.#wants.set("predecessor", { streams: [...this.shared.streams.keys()] })
      setTimeout(() => this.#wants.delete("predecessor"), TAKEOVER_GRACE)
    }
    this.#tabs?.post({ type: "lead" })
    for (const want of this.#ownWants()) this.#admit(want, this.#tabs?.id)
  }

  #resign() {
    globalThis.window?.removeEventListener("online", this.#online)
    this.#memory = this.memory()
    this.#leading = false
    this.#reader?.stop()
    this.#reader = this.#policy = null
  }

  #wantedStreams() {
    const wanted = new Set([...this.#wants.values()].flatMap(({ streams }) => streams))
    return [...wanted].filter((stream) => this.shared.streams.has(stream))
  }

  /** What the subscriptions of this tab want that take envelopes or wait for that. */
  #ownWants() {
    const wants = [...this.#subscriptions.values()].map((subscription) => subscription.want())
    return wants.filter(({ attached, waiting }) => attached || waiting)
  }

  /**
   * Reads what a subscription wants from now on.
   * @param {Want} want
   * @param {string | undefined} peer Its tab.
   */
  #admit({ id, streams, resume, attached }, peer) {
    const fresh = attached ? [] : streams.filter((stream) => !this.shared.streams.has(stream))
    if (this.shared.streams.size + fresh.length > STREAMS_MAX) {
      this.#tabs?.post({ type: "refuse", id })
      return this.#refuse(id)
    }
    this.#wants.set(id, { peer, streams })
    if (fresh.length) this.shared.add(fresh, resume)
    this.#tabs?.post({ type: "state", id, fresh, shared: this.shared.snapshot(), memory: this.memory() })
    if (streams.some((stream) => !this.#reader?.asked.has(stream))) this.#reader?.restart()
    this.#subscriptions.get(id)?.attach(this.shared, fresh)
  }

  /** @param {string} id */
  #drop(id) {
    if (!this.#wants.delete(id) || this.#wants.size) return
    // Nothing is read: the next subscription begins anew.
    this.shared = new SharedPosition()
    this.#reader?.restart()
  }

  /**
   * @param {Envelope} envelope
   * @param {Set<string>} asked
   */
  #onEnvelope(envelope, asked) {
    const { resume, resumeDelta } = envelope
    const batches = this.shared.apply(envelope, asked)
    this.#tabs?.post({ type: "envelope", batches, resume, resumeDelta, asked: resume ? [...asked] : undefined })
    this.#handOut(batches, resume || resumeDelta)
  }

  /**
   * Reading has failed for good: all subscriptions end, in all tabs, and a later one begins anew.
   * @param {Error} error
   */
  #onFatal(error) {
    const { status, problem } = error instanceof GatewayError ? error : {}
    this.#tabs?.post({ type: "fatal", status, problem, message: error.message })
    this.#wants.clear()
    this.shared = new SharedPosition()
    this.#fail(error)
  }

  // -- As a follower, and in both roles.

  /** @param {TabMessage & { peer: string }} message */
  #onMessage(message) {
    if (message.type === "device") return this.#becomeDevice(message.device)
    if (this.#leading) return this.#onRequest(message)
    const isOfLeader = this.#leader === null || message.peer === this.#leader
    if (message.type === "lead" || (message.type === "state" && isOfLeader)) this.#leader = message.peer
    else if (!isOfLeader || this.#leader === null) return
    this.#heard = seconds()
    switch (message.type) {
      case "lead":
        for (const want of this.#ownWants()) this.#tabs?.post({ type: "want", ...want })
        break
      case "state":
        this.shared = SharedPosition.from(message.shared)
        this.#memory = message.memory
        this.#subscriptions.get(message.id)?.attach(this.shared, message.fresh)
        break
      case "envelope":
        this.#handOut(this.shared.apply(message, message.asked ?? []), message.resume || message.resumeDelta)
        break
      case "event":
        this.emit(message.name, message.detail)
        break
      case "fatal": {
        const { status, problem } = message
        this.#fail(status === undefined ? new Error(message.message) : new GatewayError(status, problem))
        break
      }
      case "refuse":
        this.#refuse(message.id)
    }
  }

  /**
   * A message of a follower to this tab, which leads.
   * @param {TabMessage & { peer: string }} message
   */
  #onRequest(message) {
    if (message.type === "ping") return this.#tabs?.post({ type: "pong" })
    if (message.type === "network") return this.networkChanged(message.label)
    if (message.type === "unwant") return this.#drop(message.id)
    if (message.type !== "want") return
    const { peer } = message
    const isKnown = [...this.#wants.values()].some((want) => want.peer === peer)
    this.#admit(message, peer)
    if (isKnown) return
    this.#tabs?.whenGone(peer, () => {
      for (const [id, want] of this.#wants) if (want.peer === peer) this.#drop(id)
    })
  }

  /** A leader that holds the lock and does not respond is frozen. */
  #watchLeader() {
    if (this.#leading || !this.#subscriptions.size) return
    const silence = seconds() - this.#heard
    if (silence > 2 * SILENCE_MAX) {
      this.#heard = seconds()
      this.#tabs?.takeLead()
    } else if (silence > SILENCE_MAX) this.#tabs?.post({ type: "ping" })
  }

  /**
   * @param {PlacedBatch[]} batches
   * @param {string | undefined} token
   */
  #handOut(batches, token) {
    if (!batches.length && !token) return
    for (const subscription of this.#subscriptions.values()) subscription.receive(batches, this.shared)
  }

  /** @param {string} id */
  #refuse(id) {
    const error = new RangeError(`at most ${STREAMS_MAX} streams are read at once, in all tabs together`)
    this.#subscriptions.get(id)?.close(error)
  }

  /** @param {Error} error */
  #fail(error) {
    for (const subscription of this.#subscriptions.values()) subscription.close(error)
  }
}
