// pollgate's client for browsers and Node: reads many streams by whatever form of delivery the network lets through,
// and publishes so that a repeated request does no harm. No dependencies, no build; its types are in pollgate.d.ts.
//
// In reading order: what a caller uses (Client, Subscription), what is decided (Policy, without IO), how the forms are
// read (Reader), how tabs share one reading (Hub), how messages are published (Publisher). All times are seconds.

/** The forms of delivery, the preferred one first. */
export const FORMS = ["websocket", "sse", "ndjson", "long-poll", "short-poll"]

/** What can be set, with its defaults, in seconds unless said otherwise. */
export const SETTINGS = Object.freeze({
  /** How long a live form has for its first envelope, or four round trips if those take longer. */
  envelopeTimeout: 2,
  /** The same when a form is tried again that was mute. */
  envelopeTimeoutMax: 10,
  /** A live form that ends earlier than this has failed. */
  stableAfter: 5,
  /** When a form that was given up is tried again; doubles up to `reprobeMax`. */
  reprobeAfter: 60,
  reprobeMax: 600,
  /** Waiting after a failure; doubles from the first to the second. */
  backoffMin: 0.25,
  backoffMax: 30,
  /** Between two short polls. */
  interval: 5,
  /** How long a long poll asks to be held; whole seconds. */
  hold: 25,
  /** How long an answer to a poll may be silent behind its hold, or three round trips if those take longer. */
  answerTimeout: 5,
  /** Where the search for the WebSocket's heartbeat begins, and how far it goes; whole seconds. */
  heartbeatMin: 15,
  heartbeatMax: 300,
  /** After how many seconds of silence something on the way is known to cut; `null` if nothing is known. */
  idleClock: null,
  /** Messages that wait for a slow handler before its streams are left and polled for instead. A number. */
  queueMax: 1000,
})

const LIVE = new Set(["websocket", "sse", "ndjson"])
const STREAMS_MAX = 1000
const TARGET_BYTES_MAX = 2048
const NETWORKS_MAX = 20

// ---------------------------------------------------------------------------------------------------------------------
// What a caller uses

/** A gateway, as a client sees it. Its events are `form`, `gap`, `missing`, `closed`, `restart`, `not_gateway`, `error`. */
export class Client extends EventTarget {
  #hub
  #publisher

  constructor(url, options = {}) {
    super()
    const base = new URL(url, globalThis.location?.href)
    if (!base.pathname.endsWith("/")) base.pathname += "/"
    const settings = { ...SETTINGS, ...options.settings }
    const io = {
      base,
      fetch: options.fetch ?? ((...request) => globalThis.fetch(...request)),
      WebSocket: "WebSocket" in options ? options.WebSocket : globalThis.WebSocket,
    }
    const emit = (name, detail) => this.dispatchEvent(new CustomEvent(name, { detail }))
    const forms = formsOf(options.forms, io.WebSocket)
    const policy = { forms, settings, memory: options.memory, network: options.network, webSocket: Boolean(io.WebSocket) }
    this.#hub = new Hub({ io, policy, emit, share: options.share ?? canShare() })
    this.#publisher = new Publisher(io, settings)
  }

  /** Reads streams; without a handler the subscription is iterated over. */
  subscribe(streams, options = {}, handler = undefined) {
    if (typeof options === "function") [options, handler] = [{}, options]
    return new Subscription(this.#hub, streamsOf(streams), options, handler)
  }

  /** Appends one message; resolves with the offset behind it once it is kept, rejects if it is refused for good. */
  publish(stream, data, options = {}) {
    return this.#publisher.publish(stream, data, options)
  }

  /** Says that the network is another one: what is known of it under that label is used, and better forms are tried. */
  networkChanged(label) {
    this.#hub.networkChanged(label)
  }

  /** What has been learned of networks, as JSON, for the constructor of a later client. */
  memory() {
    return this.#hub.memory()
  }

  /** Ends all subscriptions and what is still being published. */
  close() {
    this.#hub.close()
    this.#publisher.close()
  }
}

/** The gateway refused something for good; `problem` is what it said (RFC 9457). */
export class GatewayError extends Error {
  constructor(status, problem) {
    super(problem?.detail ?? problem?.title ?? `the gateway answered ${status}`)
    this.name = "GatewayError"
    this.status = status
    this.problem = problem
  }
}

/** What a client reads: messages come to the handler one by one, each once, in order, and then the resume token moves. */
export class Subscription {
  #hub
  #handler
  #from
  #streams = new Map() // Name to {aligned, position, polledAt}: see `#take`.
  #queue = [] // Of {events, messages, resume}.
  #queued = 0
  #resumeToken // Behind what has been handled,
  #received // behind what has been queued,
  #own = null // and what it says of those streams that the shared reading does not bring yet.
  #dirty = false // `#own` speaks of other streams too.
  #attached = false
  #attaching = false
  #upToDate = false
  #catching = false
  #pumping = false
  #drained = () => {}
  #ended = false
  #stop = new AbortController()
  #settle
  #offered = null // For who iterates: a message that waits to be taken, or to be done with;
  #waiting = null // and who waits for one.

  constructor(hub, streams, { resumeToken = "", from = undefined } = {}, handler = undefined) {
    if (from !== undefined && from !== "earliest") throw new TypeError("from is earliest, or left out")
    this.id = identifier()
    this.streams = streams
    this.#hub = hub
    this.#from = from
    this.#handler = handler ?? ((message) => this.#offer(message))
    this.#resumeToken = this.#received = resumeToken
    this.#own = resumeToken
    for (const stream of streams) this.#streams.set(stream, { aligned: false, position: null, polledAt: undefined })
    this.closed = new Promise((resolve, reject) => (this.#settle = { resolve, reject }))
    this.closed.catch(() => {})
    this.#stop.signal.addEventListener("abort", () => this.#drained())
    hub.add(this)
    this.#catchUp()
  }

  /** Where to go on: behind the last envelope whose messages the handler has all dealt with. */
  get resumeToken() {
    return this.#resumeToken
  }

  /** Ends it: the handler is not called again. */
  close(error = undefined) {
    if (this.#ended) return
    this.#ended = true
    this.#hub.remove(this)
    this.#stop.abort(error ?? new Error("closed"))
    this.#waiting?.({ done: true, value: undefined })
    if (!error) return this.#settle.resolve()
    this.#settle.reject(error)
    this.#hub.emit("error", { subscription: this, error })
  }

  // -- By iteration: a message counts as handled when the next one is asked for.

  #offer(message) {
    return new Promise((handled) => {
      if (!this.#waiting) return void (this.#offered = { message, handled })
      this.#waiting({ done: false, value: message })
      this.#waiting = null
      this.#offered = { handled }
    })
  }

  [Symbol.asyncIterator]() {
    return {
      next: () => {
        if (this.#ended) return this.closed.then(() => ({ done: true, value: undefined }))
        if (this.#offered?.message) {
          const { message, handled } = this.#offered
          this.#offered = { handled }
          return Promise.resolve({ done: false, value: message })
        }
        this.#offered?.handled()
        this.#offered = null
        const next = new Promise((resolve) => (this.#waiting = resolve))
        return next.then((result) => (result.done ? this.closed.then(() => result) : result))
      },
      return: () => {
        this.#offered?.handled()
        this.close()
        return Promise.resolve({ done: true, value: undefined })
      },
    }
  }

  // -- What the hub calls.

  /** How the hub is told what is wanted. */
  want() {
    return { id: this.id, streams: this.streams, resume: this.#own, attached: this.#attached, waiting: this.#attaching }
  }

  /** The shared reading has these streams from now on; those in `fresh` it begins where this subscription is. */
  attach(shared, fresh) {
    if (this.#ended || !(this.#attaching || this.#attached)) return
    if (this.streams.some((stream) => !shared.streams.has(stream))) return this.#detach()
    if (this.#attached) return
    this.#attached = true
    this.#attaching = false
    for (const [stream, state] of this.#streams) {
      const { next } = shared.streams.get(stream)
      state.aligned = fresh.includes(stream) || (state.position !== null && state.position === next)
      if (fresh.includes(stream)) state.position = next
    }
    this.#settleOwn(true)
    if (this.#needsPoll(shared)) this.#catchUp()
  }

  /** An envelope of the shared reading, which is `shared` after it. */
  take(batches, shared) {
    if (!this.#attached) return
    if (this.#queued > this.#hub.settings.queueMax) return this.#detach()
    const [events, messages] = [[], []]
    for (const batch of batches) {
      const state = this.#streams.get(batch.stream)
      if (!state?.aligned) continue
      const next = batch.streamNextOffset ?? state.position
      if (batch.from !== state.position) {
        if (next !== null && state.position !== null && next <= state.position) continue
        // It does not begin where this subscription is: find the way back by polls, from before it.
        state.aligned = false
        this.#own = this.#received
        this.#dirty = true
        continue
      }
      state.position = next
      unpack(batch, events, messages)
    }
    this.#enqueue({ events, messages }, shared)
    if (this.#needsPoll(shared)) this.#catchUp()
  }

  // -- Catching up: short polls of its own, until the shared reading can go on. Who comes without a past is told by the first
  //    one where "now" is: a live form may be silent for seconds before it is given up, and what came meanwhile lost.

  async #catchUp() {
    if (this.#catching) return
    this.#catching = true
    const backoff = new Backoff(this.#hub.settings)
    while (!this.#ended && (!this.#upToDate || this.#needsPoll(this.#hub.shared))) {
      await this.#whenDrained()
      if (this.#ended) break
      try {
        await this.#poll()
        backoff.reset()
      } catch (failure) {
        if (this.#ended) break
        if (isFatal(failure)) return this.close(new GatewayError(failure.status, failure.problem))
        const wait = failure.retryAfter ?? backoff.next()
        this.#hub.emit(failure.kind === "not_gateway" ? "not_gateway" : "restart", { wait })
        await sleep(wait, this.#stop.signal)
      }
    }
    this.#catching = false
    if (this.#ended || this.#attached) return
    this.#attaching = true
    this.#hub.attach(this)
  }

  async #poll() {
    const asked = this.streams.filter((stream) => !this.#streams.get(stream).aligned)
    const seen = new Map(asked.map((stream) => [stream, this.#hub.shared.streams.get(stream)?.next]))
    const envelope = await this.#hub.poll({ streams: asked, resume: this.#own, from: this.#from }, this.#stop.signal)
    if (this.#ended) return
    const [events, messages] = [[], []]
    for (const batch of envelope.batches) {
      const state = this.#streams.get(batch.stream)
      if (!state) continue
      state.position = batch.streamNextOffset ?? state.position
      unpack(batch, events, messages)
    }
    this.#own = envelope.resume
    this.#dirty = false
    this.#upToDate = envelope.upToDate
    const { shared } = this.#hub
    for (const stream of asked) {
      const state = this.#streams.get(stream)
      if (envelope.upToDate) state.polledAt = seen.get(stream)
      state.aligned = this.#attached && state.position !== null && state.position === shared.streams.get(stream)?.next
    }
    this.#settleOwn(asked.some((stream) => this.#streams.get(stream).aligned))
    this.#enqueue({ events, messages }, shared)
  }

  /** Whether the shared reading has brought something for a stream that it is not aligned with. */
  #needsPoll(shared) {
    if (!this.#attached) return !this.#upToDate
    if (this.#dirty) return true
    for (const [stream, { aligned, position, polledAt }] of this.#streams) {
      const next = shared.streams.get(stream)?.next ?? null
      if (!aligned && next !== null && next !== polledAt && (position === null || next > position)) return true
    }
    return false
  }

  /** `#own` must speak of none but the streams that are not aligned, since it wins over the shared resume token. */
  #settleOwn(shrunk) {
    const unaligned = [...this.#streams.values()].filter(({ aligned }) => !aligned).length
    if (unaligned === 0) this.#own = null
    this.#dirty = unaligned > 0 && (this.#dirty || (shrunk && unaligned < this.#streams.size))
  }

  /** Leaves the shared reading and polls from where the queue ends. */
  #detach() {
    this.#attached = this.#attaching = false
    this.#upToDate = false
    this.#own = this.#received
    for (const state of this.#streams.values()) state.aligned = false
    this.#hub.detach(this)
    this.#catchUp()
  }

  // -- Handing out.

  #enqueue({ events, messages }, shared) {
    // What is not aligned is said by `#own`; while that speaks of more, the resume token stays behind.
    const resume = this.#dirty || !this.#attached ? this.#own : join(shared.resume, this.#own)
    this.#received = resume || this.#received
    this.#queue.push({ events, messages, resume: this.#received })
    this.#queued += messages.length
    this.#pump()
  }

  async #pump() {
    if (this.#pumping) return
    this.#pumping = true
    try {
      while (this.#queue.length && !this.#ended) {
        const { events, messages, resume } = this.#queue[0]
        for (const [name, detail] of events) this.#hub.emit(name, { subscription: this, ...detail })
        for (const message of messages) {
          await this.#handler(message)
          if (this.#ended) return
        }
        this.#resumeToken = resume
        this.#queued -= messages.length
        this.#queue.shift()
      }
      this.#drained()
    } catch (error) {
      // The resume token stays before the envelope whose message the handler did not take.
      this.close(error instanceof Error ? error : new Error(String(error)))
    } finally {
      this.#pumping = false
    }
  }

  #whenDrained() {
    if (!this.#queue.length) return Promise.resolve()
    return new Promise((resolve) => (this.#drained = resolve))
  }
}

/** Turns a batch into events and messages as a caller sees them. */
function unpack({ stream, data = [], contentType = "application/json", gap, missing, streamClosed }, events, messages) {
  if (gap) events.push(["gap", { stream, gap }])
  if (missing) events.push(["missing", { stream }])
  if (streamClosed) events.push(["closed", { stream }])
  const coded = !contentType.startsWith("text/") && contentType !== "application/json"
  for (const item of data) {
    messages.push({ stream, contentType, data: coded ? Uint8Array.from(atob(item), (byte) => byte.charCodeAt(0)) : item })
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// What is decided

/** Decides which form is used, when and with which settings. It knows no network and no clock: it is told. */
export class Policy {
  #settings
  #forms
  #memory
  #random
  #emit
  #backoff
  #network // What is known of the network: {label, form, hold, holdProven, heartbeatLo, heartbeatHi}.
  #search
  #present // The form in use.
  #given // Forms that were given up: name to {until, after, mute}.
  #proven // Forms that worked on this network.
  #suspect // A failure that a short poll has to confirm.
  #attempt // What is open.
  #failures // Of the present form, in a row.
  #holdCuts
  #quickCuts
  #mutes // In a row, without a heartbeat behind a silence.
  #refusals // Answers that ask for a pause, or are not ours, in a row.
  #unanswered // Polls, in a row.
  #notHeld // Long polls, in a row.
  #waitUntil
  #roundTrip = 0

  /** `emit(name, detail)` gets the events; `webSocket` is whether there are any here. */
  constructor(options = {}) {
    const { forms = FORMS, settings = SETTINGS, memory, network = "", webSocket = true } = options
    const { random = Math.random, emit = () => {} } = options
    this.#settings = settings
    this.#forms = webSocket ? forms : forms.filter((form) => form !== "websocket")
    this.#memory = new Memory(memory)
    this.#random = random
    this.#emit = emit
    this.#backoff = new Backoff(settings, random)
    this.#load(network, 0)
    const skipped = forms[0] !== this.#forms[0]
    this.#changeTo(this.#present, skipped ? "not_supported" : "start", skipped ? forms[0] : null)
  }

  /** The form in use. */
  get form() {
    return this.#present
  }

  /** What has been learned, as JSON. */
  memory() {
    return this.#memory.toJSON()
  }

  /** What to do: `{wait}` that long, or open `{form}` with `hold` or `heartbeat`, give it `envelopeWithin` for its first
   *  envelope, drop it after `muteAfter` without a byte, and leave it after `leaveAfter` for a better one. */
  next(now) {
    if (now < this.#waitUntil) return { wait: this.#waitUntil - now }
    if (this.#suspect) return this.#open(now, "short-poll", "trial by poll")
    const better = this.#better().find((form) => this.#given.get(form).until <= now)
    return better ? this.#open(now, better, "probe") : this.#open(now, this.#present, "reading")
  }

  /** Bytes came. Whether the connection is to be left, for one with another heartbeat. */
  received(now) {
    const { form, heartbeat, heardAt } = this.#attempt
    this.#attempt.heardAt = now
    if (!heartbeat || heardAt === null || now - heardAt < 0.9 * heartbeat) return false
    this.#mutes = 0
    if (form !== "websocket") return false
    this.#search.proved(heartbeat)
    this.#learnHeartbeat()
    return this.#search.heartbeat !== heartbeat
  }

  /** An envelope came. */
  envelope(now, { upToDate = true, empty = false } = {}) {
    const attempt = this.#attempt
    attempt.envelopes++
    attempt.upToDate = upToDate
    attempt.empty = empty
    attempt.heardAt ??= now
    this.#backoff.reset()
    if (attempt.envelopes > 1) return
    if (attempt.role !== "trial by poll") this.#refusals = 0
    if (attempt.form !== "long-poll") this.#roundTrip = now - attempt.since
    if (attempt.role === "trial by poll") return
    this.#proven.add(attempt.form)
    this.#network.form = attempt.form
    if (attempt.role === "probe") this.#changeTo(attempt.form, "better")
  }

  /** What was open has ended: `kind` is `answered`, `clean`, `cut`, `mute`, `no_envelope`, `refused`, `not_upgraded`,
   *  `not_gateway`, `restart` (perhaps with `retryAfter`), or `stopped` by the caller. */
  ended(now, { kind, status, retryAfter }) {
    const attempt = this.#attempt
    if (!attempt) return
    const lived = now - attempt.since
    this.#attempt = null
    if (!LIVE.has(attempt.form)) this.#unanswered = kind === "mute" ? Math.min(this.#unanswered + 1, 10) : 0
    if (lived >= this.#settings.reprobeAfter && attempt.envelopes) this.#given.delete(attempt.form)
    if (kind === "stopped") return
    if (kind === "restart" || kind === "not_gateway") return this.#notNow(now, kind, attempt, retryAfter)
    if (attempt.role === "trial by poll") return this.#judge(now, kind)
    if (attempt.form === "short-poll") return this.#shortPollEnded(now, kind, attempt)
    if (attempt.form === "long-poll") return this.#longPollEnded(now, kind, attempt, lived, status)
    if (attempt.envelopes === 0) return this.#suspectOf(now, attempt.form, kind === "clean" ? "no_envelope" : kind)
    if (kind === "mute") return this.#wasMute(now, attempt)
    if (attempt.form === "websocket") {
      this.#search.closed(attempt.heartbeat, now - attempt.heardAt)
      this.#learnHeartbeat()
    }
    if (lived < this.#settings.stableAfter) return this.#failed(now, "cut")
    this.#failures = 0
    this.#waitUntil = now + 0.1 * this.#random()
  }

  /** The network is another one, or the same again. */
  networkChanged(now, label = this.#network.label) {
    const from = this.#present
    // The same network may have healed: everything from the top.
    if (label === this.#network.label) this.#network.form = undefined
    this.#load(label, now)
    this.#backoff.reset()
    if (this.#present !== from) this.#changeTo(this.#present, "network_changed", from)
  }

  #load(label, now) {
    const { heartbeatMin: min, heartbeatMax, idleClock, reprobeAfter } = this.#settings
    const max = Math.min(heartbeatMax, idleClock === null ? Infinity : idleClock - 5)
    this.#network = this.#memory.of(label)
    this.#search = new HeartbeatSearch({ min: Math.min(min, max), max }, this.#network)
    const known = this.#forms.indexOf(this.#network.form)
    this.#present = this.#forms[Math.max(known, 0)]
    this.#given = new Map()
    for (const form of this.#forms.slice(0, Math.max(known, 0))) this.#giveUntil(form, now, reprobeAfter)
    this.#proven = new Set()
    this.#suspect = this.#attempt = null
    this.#resetCounts()
    this.#unanswered = this.#notHeld = 0
    this.#waitUntil = now
  }

  #resetCounts() {
    this.#failures = this.#holdCuts = this.#quickCuts = this.#mutes = this.#refusals = 0
  }

  #learnHeartbeat() {
    Object.assign(this.#network, this.#search.bounds)
  }

  #open(now, form, role) {
    const { hold: longest, heartbeatMin, answerTimeout, backoffMax } = this.#settings
    const live = LIVE.has(form)
    const hold = form === "long-poll" ? Math.min(this.#network.hold ?? longest, longest) : 0
    const heartbeat = form === "websocket" ? this.#search.heartbeat : Math.min(this.#search.heartbeat, heartbeatMin)
    this.#attempt = { form, role, since: now, hold, heartbeat, envelopes: 0, upToDate: true, empty: true, heardAt: null }
    if (!live) {
      // More patience after each poll that was not answered: the network may just be very slow.
      const patience = Math.max(answerTimeout, 3 * this.#roundTrip) * 2 ** this.#unanswered
      return { form, hold, muteAfter: hold + Math.min(patience, Math.max(backoffMax, answerTimeout)) }
    }
    const until = this.#better().map((better) => this.#given.get(better).until)
    return {
      form, heartbeat, envelopeWithin: this.#patience(form), muteAfter: 1.5 * heartbeat + this.#roundTrip,
      leaveAfter: role === "reading" ? Math.min(...until) - now + 0.01 : Infinity,
    }
  }

  #patience(form) {
    const { envelopeTimeout, envelopeTimeoutMax } = this.#settings
    const patience = Math.max(envelopeTimeout, 4 * this.#roundTrip)
    return this.#given.get(form)?.mute ? Math.max(patience, Math.min(2 * patience, envelopeTimeoutMax)) : patience
  }

  /** Forms that are better than the present one, and were given up. */
  #better() {
    return this.#forms.slice(0, this.#forms.indexOf(this.#present)).filter((form) => this.#given.has(form))
  }

  #changeTo(form, reason, from = this.#present) {
    this.#present = form
    this.#resetCounts()
    this.#emit("form", { from, to: form, reason })
  }

  #giveUntil(form, now, after, mute = false) {
    this.#given.set(form, { until: now + after * (0.95 + 0.1 * this.#random()), after, mute })
  }

  #giveUp(now, form, reason) {
    const { reprobeAfter, reprobeMax } = this.#settings
    const before = this.#given.get(form)?.after
    this.#giveUntil(form, now, before ? Math.min(2 * before, reprobeMax) : reprobeAfter, reason === "mute")
    this.#resetCounts()
    if (form !== this.#present) return
    const next = this.#after(form)
    if (next) return this.#changeTo(next, reason)
    // There is nothing else: it is what there is.
    this.#given.delete(form)
    this.#waitUntil = now + this.#backoff.next()
  }

  #after(form) {
    return this.#forms.slice(this.#forms.indexOf(form) + 1).find((later) => !this.#given.has(later))
  }

  /** A form has failed: a short poll brings what there is, and shows whether the form is to blame. */
  #suspectOf(now, form, reason, further = {}) {
    if (form !== this.#present || this.#after(form)) this.#suspect = { form, reason, ...further }
    else this.#waitUntil = now + this.#backoff.next()
  }

  /** The short poll has ended: if it got through, the form is to blame. */
  #judge(now, kind) {
    const { form, reason, cutAfter, proven, lenient } = this.#suspect
    this.#suspect = null
    if (kind === "refused") return this.#notGateway(now)
    if (kind !== "answered") return this.#restart(now)
    if (cutAfter !== undefined) return this.#longPollCut(now, cutAfter)
    if (lenient) return
    // One that has worked may meet a gateway that is starting; one that is silent is silenced.
    const excused = !proven && this.#proven.has(form) && reason !== "no_envelope" && form === this.#present
    if (excused) this.#failed(now, reason)
    else this.#giveUp(now, form, reason)
  }

  #failed(now, reason) {
    if (++this.#failures >= 3) this.#suspectOf(now, this.#present, reason, { proven: true })
    else this.#waitUntil = now + this.#backoff.next()
  }

  #wasMute(now, { form, heartbeat, envelopes }) {
    // A heartbeat that was too slow for the network is no fault of the form; and one that has worked may have lost
    // its address, though not again and again.
    if (form === "websocket" && this.#search.muted(heartbeat)) return
    if (envelopes < 2 || ++this.#mutes >= 3) this.#suspectOf(now, form, "mute", { proven: true })
  }

  /** 503 and the like, or something else that answers. If only this form gets that, it is not the gateway's. */
  #notNow(now, kind, { form, role, envelopes }, retryAfter) {
    if (kind === "restart") this.#restart(now, retryAfter)
    else this.#notGateway(now)
    if (role === "trial by poll" || envelopes || form === "short-poll") this.#refusals = 0
    else if (++this.#refusals >= 3) {
      const reason = kind === "restart" ? "refused" : "no_envelope"
      this.#suspect = { form, reason, proven: true, lenient: this.#refusals === 3 }
    }
  }

  #shortPollEnded(now, kind, { upToDate }) {
    if (kind === "refused") return this.#notGateway(now)
    if (kind !== "answered") return this.#restart(now)
    this.#waitUntil = upToDate ? now + this.#settings.interval : now
  }

  #longPollEnded(now, kind, { hold, empty }, lived, status) {
    const between = [408, 502, 504].includes(status)
    if (kind === "refused" && !between) return this.#suspectOf(now, "long-poll", kind)
    if (kind !== "answered") return this.#cutLongPoll(now, kind === "mute" ? hold : lived)
    this.#holdCuts = this.#quickCuts = 0
    const whole = Math.floor(lived)
    if (whole > (this.#network.holdProven ?? 0)) this.#network.holdProven = whole
    // The first one is not held if its resume token does not know all streams; more of them, and somebody does not hold.
    this.#notHeld = empty && lived < Math.min(1, hold / 2) ? this.#notHeld + 1 : 0
    if (this.#notHeld > 1) this.#waitUntil = now + this.#settings.backoffMin
  }

  #cutLongPoll(now, after) {
    this.#suspect = { form: "long-poll", reason: "cut", cutAfter: after }
    this.#waitUntil = now
  }

  #longPollCut(now, after) {
    if (after < 1) {
      if (++this.#quickCuts >= 3) return this.#giveUp(now, "long-poll", "cut")
      this.#waitUntil = now + this.#backoff.next()
      return
    }
    const fluke = ++this.#holdCuts === 1 && after <= (this.#network.holdProven ?? 0)
    if (!fluke) this.#network.hold = Math.max(1, Math.floor(0.8 * after))
  }

  #restart(now, retryAfter = Infinity) {
    this.#suspect = null
    // It was the gateway that cut, not something on the way.
    this.#search.excuse()
    this.#learnHeartbeat()
    const wait = retryAfter <= this.#settings.reprobeMax ? retryAfter : this.#backoff.next()
    this.#waitUntil = now + wait
    this.#emit("restart", { wait })
  }

  #notGateway(now) {
    this.#suspect = null
    const wait = this.#backoff.next()
    this.#waitUntil = now + wait
    this.#emit("not_gateway", { wait })
  }
}

/** Waits that double, of which a random half is left out. */
class Backoff {
  #min
  #max
  #random
  #wait

  constructor({ backoffMin, backoffMax }, random = Math.random) {
    this.#min = backoffMin
    this.#max = backoffMax
    this.#random = random
    this.reset()
  }

  reset() {
    this.#wait = this.#min
  }

  next() {
    const wait = this.#wait * (0.5 + 0.5 * this.#random())
    this.#wait = Math.min(2 * this.#wait, this.#max)
    return wait
  }
}

/** Searches the slowest heartbeat that keeps a connection alive: doubles until one fails, then bisects. */
export class HeartbeatSearch {
  #min
  #max
  #lo
  #hi
  #doubted = null // Failed, which counts once the fastest heartbeat has shown that the network itself is well.
  #before = null // What was known before the last failure, until something speaks for or against it.

  constructor({ min, max }, { heartbeatLo = null, heartbeatHi = null } = {}) {
    this.#min = min
    this.#max = max
    this.#lo = heartbeatLo
    this.#hi = heartbeatHi
  }

  /** What is proven and what has failed. */
  get bounds() {
    return { heartbeatLo: this.#lo ?? undefined, heartbeatHi: this.#hi ?? undefined }
  }

  /** The heartbeat for the next connection, in whole seconds. */
  get heartbeat() {
    const [lo, hi] = [this.#lo, this.#hi]
    if (this.#doubted !== null || lo === null) return this.#min
    const near = Math.max(this.#min / 3, lo / 10, 1)
    if (lo >= this.#max || (hi !== null && hi - lo <= near)) {
      return Math.max(this.#min, Math.round(lo - Math.min(0.1 * lo, 20)))
    }
    return hi === null ? Math.min(2 * lo, this.#max) : Math.round((lo + hi) / 2)
  }

  /** A connection with that heartbeat was silent for so long, and lived. */
  proved(heartbeat) {
    if (this.#doubted !== null && heartbeat <= this.#min) this.#fail(this.#doubted)
    this.#before = null
    this.#lo = Math.max(this.#lo ?? 0, heartbeat)
    if (this.#hi !== null && this.#hi <= this.#lo) this.#hi = null
  }

  /** A connection with that heartbeat went silent for good. Whether that may be the heartbeat's fault. */
  muted(heartbeat) {
    const slower = heartbeat > this.#min
    this.#doubted = slower ? heartbeat : null
    return slower
  }

  /** A connection was closed after so much silence. If none has lived so long in silence, that is what something on the
   *  way allows, and it is not asked twice. */
  closed(heartbeat, silence) {
    if (heartbeat <= this.#min || silence <= (this.#lo ?? 0)) return
    this.#before = [this.#lo, this.#hi]
    this.#fail(Math.max(this.#min + 1, Math.min(heartbeat, Math.round(silence))))
  }

  /** It was the gateway that went away. */
  excuse() {
    if (this.#before) [this.#lo, this.#hi] = this.#before
    this.#before = this.#doubted = null
  }

  #fail(heartbeat) {
    this.#hi = heartbeat
    this.#doubted = null
    if (this.#lo >= heartbeat) this.#lo = this.#min
  }
}

/** What is known of networks, the one that was used last first. */
class Memory {
  #networks

  constructor(json) {
    const networks = Array.isArray(json?.networks) ? json.networks : []
    this.#networks = networks.map((network) => ({ ...network }))
  }

  of(label) {
    const known = this.#networks.find((network) => network.label === label) ?? { label }
    const others = this.#networks.filter((network) => network !== known)
    this.#networks = [known, ...others].slice(0, NETWORKS_MAX)
    return known
  }

  toJSON() {
    // Through text, so that what is not known is left out.
    return JSON.parse(JSON.stringify({ networks: this.#networks }))
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// How the forms are read

/** Why a request or a connection ended, in the words of `Policy.ended`. */
class Failure extends Error {
  constructor(kind, details = {}) {
    super(kind)
    Object.assign(this, { kind, ...details })
  }
}

/** Reads what is asked for, in the form that its policy says, until it is stopped. */
class Reader {
  #io
  #policy
  #request
  #onEnvelope
  #onFatal
  #stopped = false
  #interrupt = new AbortController()
  /** The streams that the open connection was asked for. */
  asked = new Set()

  /** `request()` says what to read: `{streams, resume}`. */
  constructor({ io, policy, request, onEnvelope, onFatal }) {
    this.#io = io
    this.#policy = policy
    this.#request = request
    this.#onEnvelope = onEnvelope
    this.#onFatal = onFatal
    this.#run()
  }

  /** What to read has changed. */
  restart() {
    this.#interrupt.abort(new Failure("stopped"))
  }

  networkChanged(label) {
    this.restart()
    this.#policy.networkChanged(seconds(), label)
  }

  stop() {
    this.#stopped = true
    this.restart()
  }

  async #run() {
    while (!this.#stopped) {
      // Those who come at the same time are asked for together.
      await sleep(0.001)
      if (this.#interrupt.signal.aborted) this.#interrupt = new AbortController()
      const request = this.#request()
      this.asked = new Set(request.streams)
      const { signal } = this.#interrupt
      if (!request.streams.length) {
        await aborted(signal)
        continue
      }
      const step = this.#policy.next(seconds())
      if (step.wait) await sleep(step.wait, signal)
      else await this.#perform(step, request, signal)
    }
  }

  async #perform(step, request, signal) {
    const leave = new AbortController()
    const give = (kind) => () => leave.abort(new Failure(kind))
    const interrupted = give("stopped")
    signal.addEventListener("abort", interrupted, { once: true })
    const first = after(step.envelopeWithin, give("no_envelope"))
    const better = after(step.leaveAfter, give("stopped"))
    let mute = after(step.muteAfter, give("mute"))
    const heard = () => {
      clearTimeout(mute)
      mute = after(step.muteAfter, give("mute"))
    }
    const hooks = {
      bytes: () => {
        if (leave.signal.aborted) return
        heard()
        // Only what comes behind the first envelope shows that an idle connection lives.
        if (hooks.began && this.#policy.received(seconds())) leave.abort(new Failure("stopped"))
      },
      envelope: (envelope) => {
        if (leave.signal.aborted) return
        clearTimeout(first)
        hooks.began = true
        this.#policy.envelope(seconds(), { upToDate: envelope.upToDate, empty: !envelope.batches.length })
        this.#onEnvelope(envelope, this.asked)
      },
    }
    let end
    try {
      end = await READ[step.form](this.#io, { ...request, ...step }, hooks, leave.signal)
    } catch (error) {
      end = leave.signal.aborted ? leave.signal.reason : failure(error)
    }
    for (const timer of [first, better, mute]) clearTimeout(timer)
    signal.removeEventListener("abort", interrupted)
    if (signal.aborted) end = signal.reason
    if (this.#stopped) return
    if (isFatal(end)) {
      this.#stopped = true
      return this.#onFatal(new GatewayError(end.status, end.problem))
    }
    this.#policy.ended(seconds(), end)
  }
}

/** Each form: reads until its end, which it returns or throws as a `Failure`. */
const READ = {
  websocket: readWebSocket,
  sse: (io, request, hooks, signal) => readLines(io, request, "text/event-stream", events(hooks), hooks, signal),
  ndjson: (io, request, hooks, signal) => {
    const line = (text) => text && hooks.envelope(parse(text))
    return readLines(io, request, "application/x-ndjson", line, hooks, signal)
  },
  "long-poll": readPoll,
  "short-poll": readPoll,
}

async function readPoll(io, request, hooks, signal) {
  const answer = await ask(io, request, "application/json", signal)
  hooks.bytes()
  let text = ""
  for await (const part of texts(answer)) {
    hooks.bytes()
    text += part
  }
  hooks.envelope(parse(text))
  return { kind: "answered" }
}

async function readLines(io, request, contentType, onLine, hooks, signal) {
  const answer = await ask(io, request, contentType, signal)
  hooks.bytes()
  let left = ""
  for await (const part of texts(answer)) {
    hooks.bytes()
    const lines = (left + part).split("\n")
    left = lines.pop()
    for (const line of lines) onLine(line.endsWith("\r") ? line.slice(0, -1) : line)
    if (signal.aborted) throw signal.reason
  }
  return { kind: "clean" }
}

/** The lines of server-sent events, of which only data matters. */
function events(hooks) {
  let data = []
  return (line) => {
    if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5))
    if (line !== "" || !data.length) return
    const text = data.join("\n")
    data = []
    hooks.envelope(parse(text))
  }
}

async function* texts(answer) {
  const reader = answer.body.getReader()
  const decoder = new TextDecoder()
  try {
    for (;;) {
      const { value, done } = await reader.read()
      if (done) return
      yield decoder.decode(value, { stream: true })
    }
  } finally {
    reader.cancel().catch(() => {})
  }
}

function readWebSocket(io, request, hooks, signal) {
  return new Promise((resolve, reject) => {
    const { target, body } = encode(io, request)
    target.protocol = target.protocol.replace("http", "ws")
    const socket = new io.WebSocket(target)
    let opened = false
    const end = (outcome) => {
      socket.onopen = socket.onmessage = socket.onclose = null
      signal.removeEventListener("abort", leave)
      socket.close()
      resolve(outcome)
    }
    const leave = () => end(signal.reason)
    signal.addEventListener("abort", leave)
    socket.onerror = () => {}
    socket.onopen = () => {
      opened = true
      hooks.bytes()
      if (body) socket.send(JSON.stringify(body))
    }
    socket.onmessage = ({ data }) => {
      try {
        const envelope = parse(data)
        hooks.bytes()
        hooks.envelope(envelope)
      } catch (error) {
        end(failure(error))
      }
    }
    socket.onclose = ({ code }) => {
      if (code === 1012 || code === 1013) end({ kind: "restart" })
      else if (code === 1000 || code === 1001) end({ kind: "clean" })
      else end({ kind: opened ? "cut" : "not_upgraded" })
    }
    if (signal.aborted) leave()
  }).catch((error) => Promise.reject(failure(error)))
}

/** One short poll, on its own. */
async function poll(io, request, signal) {
  let envelope
  const stop = new AbortController()
  const leave = () => stop.abort(new Failure("stopped"))
  signal.addEventListener("abort", leave, { once: true })
  const tooLate = () => stop.abort(new Failure("mute"))
  let timer = after(10, tooLate)
  const hooks = {
    bytes: () => {
      clearTimeout(timer)
      timer = after(10, tooLate)
    },
    envelope: (one) => (envelope = one),
  }
  try {
    await readPoll(io, { ...request, form: "short-poll" }, hooks, stop.signal)
    return envelope
  } catch (error) {
    throw stop.signal.aborted ? stop.signal.reason : failure(error)
  } finally {
    clearTimeout(timer)
    signal.removeEventListener("abort", leave)
  }
}

/** The target of a reading, and its body if the target would be too long. */
function encode(io, { form, streams, resume, from, hold, heartbeat, client }) {
  const target = new URL("v1/streams", io.base)
  const live = form === "short-poll" ? undefined : form
  const fields = { resume: resume || undefined, from, timeout: hold || undefined, client: hold ? client : undefined }
  if (LIVE.has(form)) fields.heartbeat = heartbeat
  const query = new URLSearchParams(streams.map((stream) => ["stream", stream]))
  for (const [name, value] of Object.entries({ ...fields, live })) if (value !== undefined) query.append(name, value)
  target.search = query
  if (target.pathname.length + target.search.length < TARGET_BYTES_MAX) return { target }
  target.search = form === "websocket" ? "?live=websocket" : ""
  return { target, body: { stream: streams, ...fields, ...(form === "websocket" ? {} : { live }) } }
}

/** Asks, and gives the answer once its head has shown that it is the gateway's. */
async function ask(io, request, contentType, signal) {
  const { target, body } = encode(io, request)
  const post = body && { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } }
  const answer = await io.fetch(target.href, { ...post, signal, cache: "no-store" })
  if (answer.status === 200 && typeOf(answer) === contentType && answer.body) return answer
  throw await refusal(answer)
}

async function refusal(answer) {
  const { status } = answer
  const retryAfter = Number(answer.headers.get("retry-after") ?? NaN)
  const problem = typeOf(answer) === "application/problem+json" ? await answer.json().catch(() => null) : null
  // What is not read keeps its connection.
  if (!problem) answer.body?.cancel().catch(() => {})
  if (status === 503 || status === 429) {
    return new Failure("restart", Number.isFinite(retryAfter) ? { retryAfter } : {})
  }
  return new Failure(answer.ok ? "not_gateway" : "refused", { status, problem })
}

const typeOf = (answer) => (answer.headers.get("content-type") ?? "").split(";")[0].trim().toLowerCase()

/** Whether the gateway itself has refused what was asked, so that asking again is of no use. */
const isFatal = ({ kind, status, problem }) =>
  kind === "refused" && problem?.type?.startsWith("urn:pollgate:") && status >= 400 && status < 500 && ![408, 426, 429].includes(status)

/** An envelope from its text. */
function parse(text) {
  let value
  try {
    value = JSON.parse(text)
  } catch {
    // What is no JSON behind the right content type was cut off.
    throw new Failure("cut")
  }
  if (value?.error) throw new Failure("refused", { status: value.error.status, problem: value.error })
  const ours = Array.isArray(value?.batches) && value.batches.every((batch) => typeof batch?.stream === "string")
  if (!ours) throw new Failure("not_gateway")
  return { ...value, upToDate: value.upToDate === true }
}

/** What Node says when nobody listens; browsers do not tell. */
const UNREACHABLE = new Set(["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "ENETUNREACH"])

function failure(error) {
  if (error instanceof Failure) return error
  const codes = [error?.cause?.code, ...(error?.cause?.errors ?? []).map(({ code }) => code)]
  return new Failure(codes.some((code) => UNREACHABLE.has(code)) ? "restart" : "cut")
}

// ---------------------------------------------------------------------------------------------------------------------
// How one reading is shared

/** What the shared reading knows, in the tab that reads and in those that listen. */
class Shared {
  /** Where it goes on. */
  resume = ""
  /** Name to `{next}`: the offset behind its last batch. */
  streams = new Map()
  /** Streams that no full resume token speaks of yet, with where they begin. */
  fresh = []

  static from({ resume, streams, fresh }) {
    return Object.assign(new Shared(), { resume, streams: new Map(streams), fresh })
  }

  snapshot() {
    return { resume: this.resume, streams: [...this.streams], fresh: this.fresh }
  }

  add(streams, resume) {
    for (const stream of streams) this.streams.set(stream, { next: null })
    this.fresh = [...this.fresh, { streams, resume }]
  }

  /** The resume token to ask with: a later part wins, and who came first knows best. */
  get start() {
    return [...this.fresh.map(({ resume }) => resume).reverse(), this.resume].reduce(join, "")
  }

  /** Takes an envelope that was asked for these streams, and returns its batches with the offset that each is from. */
  apply({ batches, resume, resumeDelta }, asked) {
    const taken = []
    for (const batch of batches) {
      const state = this.streams.get(batch.stream)
      if (!state) continue
      taken.push({ ...batch, from: "from" in batch ? batch.from : state.next })
      state.next = batch.streamNextOffset ?? state.next
    }
    if (resumeDelta) this.resume = join(this.resume, resumeDelta)
    else if (resume) this.#replace(resume, new Set(asked))
    return taken
  }

  /** A full resume token: what was not asked for is not in it. */
  #replace(resume, asked) {
    this.resume = resume
    this.fresh = this.fresh.filter(({ streams }) => !streams.every((stream) => asked.has(stream)))
    const still = new Set(this.fresh.flatMap(({ streams }) => streams))
    for (const stream of this.streams.keys()) {
      if (!asked.has(stream) && !still.has(stream)) this.streams.delete(stream)
    }
  }
}

/** Subscriptions on one side, one reading on the other: in this tab, or in another one of the same origin. */
class Hub {
  shared = new Shared()
  settings
  emit
  #io
  #options
  #share
  #tabs = null
  #started = false
  #leading = false
  #leader = null
  #policy = null
  #reader = null
  #memory
  #subscriptions = new Map()
  #wants = new Map() // Of all tabs, if this one leads: subscription to {peer, streams}.
  #client = identifier()
  #closed = false
  #heard = seconds()
  #watch
  #online = () => this.networkChanged()

  constructor({ io, policy, emit, share }) {
    this.#io = io
    this.#options = policy
    this.#memory = policy.memory
    this.#share = share
    this.settings = policy.settings
    this.emit = emit
  }

  add(subscription) {
    if (this.#closed) throw new Error("the client is closed")
    this.#subscriptions.set(subscription.id, subscription)
    if (this.#started) return
    this.#started = true
    if (!this.#share) return this.#lead()
    const name = ["pollgate", this.#io.base.href, this.#share === true ? "" : this.#share].join(" ")
    this.#tabs = new Tabs(name, {
      lead: () => this.#lead(),
      resign: () => this.#resign(),
      message: (message) => this.#onMessage(message),
    })
    this.#watch = setInterval(() => this.#watchLeader(), 5000)
  }

  /** A subscription that has caught up takes part in the shared reading. */
  attach(subscription) {
    if (this.#leading) return this.#admit({ ...subscription.want(), peer: this.#tabs?.id })
    this.#heard = Math.min(this.#heard, seconds() - SILENT)
    this.#tabs?.post({ type: "want", ...subscription.want() })
  }

  /** It does not, for now. */
  detach({ id }) {
    if (this.#leading) this.#drop(id)
    else this.#tabs?.post({ type: "unwant", id })
  }

  remove(subscription) {
    this.#subscriptions.delete(subscription.id)
    this.detach(subscription)
  }

  poll(request, signal) {
    return poll(this.#io, request, signal)
  }

  networkChanged(label) {
    this.#options.network = label ?? this.#options.network
    if (this.#reader) this.#reader.networkChanged(label)
    else this.#tabs?.post({ type: "network", label })
  }

  memory() {
    return this.#policy?.memory() ?? new Memory(this.#memory).toJSON()
  }

  close() {
    this.#closed = true
    for (const subscription of this.#subscriptions.values()) subscription.close()
    clearInterval(this.#watch)
    this.#resign()
    this.#tabs?.close()
  }

  // -- As the one that reads.

  #lead() {
    if (this.#closed) return
    this.#leading = true
    this.#wants.clear()
    const emit = (name, detail) => this.#announce(name, detail)
    this.#policy = new Policy({ ...this.#options, memory: this.#memory, emit })
    this.#reader = new Reader({
      io: this.#io,
      policy: this.#policy,
      request: () => ({ streams: this.#wanted(), resume: this.shared.start, client: this.#client }),
      onEnvelope: (envelope, asked) => this.#spread(envelope, asked),
      onFatal: (error) => {
        this.#tabs?.post({ type: "fatal", status: error.status, problem: error.problem })
        this.#fail(error)
      },
    })
    globalThis.window?.addEventListener("online", this.#online)
    // Until the other tabs have said what they want, it is what they wanted.
    if (this.shared.streams.size) {
      this.#wants.set("before", { streams: [...this.shared.streams.keys()] })
      setTimeout(() => this.#wants.delete("before"), 3000)
    }
    this.#tabs?.post({ type: "lead" })
    for (const subscription of this.#subscriptions.values()) {
      const want = subscription.want()
      if (want.attached || want.waiting) this.#admit({ ...want, peer: this.#tabs?.id })
    }
  }

  #resign() {
    globalThis.window?.removeEventListener("online", this.#online)
    this.#memory = this.memory()
    this.#leading = false
    this.#reader?.stop()
    this.#reader = this.#policy = null
  }

  #wanted() {
    const wanted = new Set([...this.#wants.values()].flatMap(({ streams }) => streams))
    return [...wanted].filter((stream) => this.shared.streams.has(stream))
  }

  #admit({ id, peer, streams, resume, attached }) {
    const fresh = attached ? [] : streams.filter((stream) => !this.shared.streams.has(stream))
    if (this.shared.streams.size + fresh.length > STREAMS_MAX) {
      this.#tabs?.post({ type: "refuse", id })
      return this.#subscriptions.get(id)?.close(tooMany())
    }
    this.#wants.set(id, { peer, streams })
    if (fresh.length) this.shared.add(fresh, resume)
    this.#tabs?.post({ type: "state", id, fresh, shared: this.shared.snapshot(), memory: this.memory() })
    const { asked } = this.#reader
    if (streams.some((stream) => !asked.has(stream))) this.#reader.restart()
    this.#subscriptions.get(id)?.attach(this.shared, fresh)
  }

  #drop(id) {
    if (!this.#wants.delete(id) || this.#wants.size) return
    // Nobody reads: whoever comes next begins anew.
    this.shared = new Shared()
    this.#reader?.restart()
  }

  #spread(envelope, asked) {
    const { resume, resumeDelta } = envelope
    const batches = this.shared.apply(envelope, asked)
    this.#tabs?.post({ type: "envelope", batches, resume, resumeDelta, asked: resume && [...asked] })
    if (!batches.length && !resume && !resumeDelta) return
    for (const subscription of this.#subscriptions.values()) subscription.take(batches, this.shared)
  }

  #announce(name, detail) {
    this.#tabs?.post({ type: "event", name, detail })
    this.emit(name, detail)
  }

  #fail(error) {
    for (const subscription of this.#subscriptions.values()) subscription.close(error)
  }

  // -- As one of those that listen.

  #onMessage(message) {
    if (this.#leading) return this.#onRequest(message)
    const ofLeader = this.#leader === null || message.peer === this.#leader
    const { type } = message
    if (type === "lead" || (type === "state" && ofLeader)) this.#leader = message.peer
    else if (!ofLeader || this.#leader === null) return
    this.#heard = seconds()
    if (type === "lead") {
      for (const subscription of this.#subscriptions.values()) {
        const want = subscription.want()
        if (want.attached || want.waiting) this.#tabs.post({ type: "want", ...want })
      }
    } else if (type === "state") {
      this.shared = Shared.from(message.shared)
      this.#memory = message.memory
      this.#subscriptions.get(message.id)?.attach(this.shared, message.fresh)
    } else if (type === "envelope") {
      const batches = this.shared.apply(message, message.asked)
      if (!batches.length && !message.resume && !message.resumeDelta) return
      for (const subscription of this.#subscriptions.values()) subscription.take(batches, this.shared)
    } else if (type === "event") this.emit(message.name, message.detail)
    else if (type === "fatal") this.#fail(new GatewayError(message.status, message.problem))
    else if (type === "refuse") this.#subscriptions.get(message.id)?.close(tooMany())
  }

  #onRequest(message) {
    if (message.type === "ping") return this.#tabs.post({ type: "pong" })
    if (message.type === "network") return this.networkChanged(message.label)
    if (message.type === "unwant") return this.#drop(message.id)
    if (message.type !== "want") return
    const { peer } = message
    const known = [...this.#wants.values()].some((want) => want.peer === peer)
    this.#admit(message)
    if (known) return
    this.#tabs.whenGone(peer, () => {
      for (const [id, want] of this.#wants) if (want.peer === peer) this.#drop(id)
    })
  }

  /** A tab that holds the lock and does not answer is frozen. */
  #watchLeader() {
    if (this.#leading || !this.#subscriptions.size) return
    const silent = seconds() - this.#heard
    if (silent > 2 * SILENT) {
      this.#heard = seconds()
      this.#tabs.steal()
    } else if (silent > SILENT) this.#tabs.post({ type: "ping" })
  }
}

/** After how much silence the tab that reads is asked whether it lives; after twice of it, it is taken for dead. */
const SILENT = 15

const tooMany = () => new RangeError(`at most ${STREAMS_MAX} streams are read at once, in all tabs together`)

/** The tabs of one origin: one of them leads, and all can say something to all others. */
class Tabs {
  id = identifier()
  #name
  #hooks
  #channel
  #closed = false
  #close
  #untilClosed = new Promise((resolve) => (this.#close = resolve))
  #queued = new AbortController()

  constructor(name, hooks) {
    this.#name = name
    this.#hooks = hooks
    this.#channel = new BroadcastChannel(name)
    this.#channel.onmessage = ({ data }) => hooks.message(data)
    // Whoever gets this lock knows that the tab is gone.
    this.#hold(this.#lockOf(this.id), {}, () => {})
    this.#compete()
  }

  post(message) {
    if (!this.#closed) this.#channel.postMessage({ ...message, peer: this.id })
  }

  whenGone(peer, then) {
    navigator.locks.request(this.#lockOf(peer), () => !this.#closed && then())
  }

  /** Takes the lead from a tab that does not answer. */
  steal() {
    this.#queued.abort()
    this.#compete({ steal: true })
  }

  close() {
    this.#closed = true
    this.#queued.abort()
    this.#close()
    this.#channel.close()
  }

  #lockOf(peer) {
    return `${this.#name} ${peer}`
  }

  #compete(options = undefined) {
    this.#queued = new AbortController()
    const { signal } = this.#queued
    let led = false
    const lead = () => {
      led = true
      this.#hooks.lead()
    }
    this.#hold(this.#name, options ?? { signal }, lead).catch(() => {
      if (this.#closed || !led) return
      this.#hooks.resign()
      this.#compete()
    })
  }

  #hold(name, options, then) {
    return navigator.locks.request(name, options, () => {
      then()
      return this.#untilClosed
    })
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// How messages are published

/** Appends, one request in flight a stream, repeated until it is acknowledged or refused for good. */
class Publisher {
  #io
  #settings
  #id = identifier()
  #lines = new Map()
  #stop = new AbortController()

  constructor(io, settings) {
    this.#io = io
    this.#settings = settings
  }

  async publish(stream, data, { contentType = "application/json", create = false } = {}) {
    const [name] = streamsOf([stream])
    this.#stop.signal.throwIfAborted()
    const body = contentType === "application/json" ? JSON.stringify(data) : data
    if (body === undefined) throw new TypeError("this is not JSON")
    const line = this.#lines.get(name) ?? { waiting: [], sending: false, epoch: 0, sequence: 0 }
    this.#lines.set(name, line)
    return new Promise((resolve, reject) => {
      line.waiting.push({ body, contentType, create, resolve, reject })
      this.#drive(name, line)
    })
  }

  close() {
    this.#stop.abort(new Error("closed"))
  }

  async #drive(name, line) {
    if (line.sending) return
    line.sending = true
    while (line.waiting.length) {
      const batch = nextBatch(line.waiting)
      try {
        const offset = await this.#send(name, line, batch)
        line.sequence++
        for (const { resolve } of batch) resolve(offset)
      } catch (error) {
        for (const { reject } of batch) reject(error)
      }
    }
    line.sending = false
  }

  async #send(name, line, batch) {
    const [{ contentType, create }] = batch
    const path = name.split("/").map(encodeURIComponent).join("/")
    const target = new URL(`v1/stream/${path}${create ? "?create=1" : ""}`, this.#io.base).href
    const body = contentType === "application/json" ? `[${batch.map(({ body }) => body).join(",")}]` : batch[0].body
    const backoff = new Backoff(this.#settings)
    for (;;) {
      const answer = await this.#attempt(target, line, contentType, body)
      const offset = answer?.ok && answer.headers.get("stream-next-offset")
      if (offset) return offset
      if (answer?.status === 409 && answer.headers.has("producer-expected-seq")) {
        // The gateway has forgotten this producer: it begins anew.
        line.epoch++
        line.sequence = 0
        continue
      }
      const end = answer && (await refusal(answer))
      if (end && isFatal(end)) throw new GatewayError(end.status, end.problem)
      await sleep(end?.retryAfter ?? backoff.next(), this.#stop.signal)
    }
  }

  /** The answer, or nothing if there was none. */
  async #attempt(target, line, contentType, body) {
    this.#stop.signal.throwIfAborted()
    const producer = { "producer-id": this.#id, "producer-epoch": `${line.epoch}`, "producer-seq": `${line.sequence}` }
    const headers = { "content-type": contentType, ...producer }
    const leave = new AbortController()
    const timer = after(PUBLISH_TIMEOUT, () => leave.abort())
    const closed = () => leave.abort()
    this.#stop.signal.addEventListener("abort", closed, { once: true })
    try {
      return await this.#io.fetch(target, { method: "POST", body, headers, signal: leave.signal, cache: "no-store" })
    } catch {
      return null
    } finally {
      clearTimeout(timer)
      this.#stop.signal.removeEventListener("abort", closed)
    }
  }
}

/** An answer to an append that takes longer than this is not waited for. */
const PUBLISH_TIMEOUT = 30

/** Far below what the gateway takes. */
const PUBLISH_BYTES_MAX = 256 * 1024

/** Takes what goes into one request: values of JSON together, anything else alone. */
function nextBatch(waiting) {
  const [{ contentType, create }] = waiting
  let [count, size] = [0, 0]
  for (const one of waiting) {
    size += one.body.length
    const same = one.contentType === contentType && one.create === create && contentType === "application/json"
    if (count > 0 && (!same || size > PUBLISH_BYTES_MAX)) break
    count++
  }
  return waiting.splice(0, count)
}

// ---------------------------------------------------------------------------------------------------------------------
// What all of them need

function formsOf(forms = FORMS, webSocket) {
  const wrong = forms.find((form) => !FORMS.includes(form))
  if (wrong !== undefined || !forms.length) throw new TypeError(`forms are ${FORMS.join(", ")}, at least one`)
  if (!webSocket && forms.every((form) => form === "websocket")) throw new TypeError("there is no WebSocket here")
  return forms
}

function streamsOf(streams) {
  const names = [...new Set(typeof streams === "string" ? [streams] : streams)]
  if (!names.length || names.length > STREAMS_MAX) throw new RangeError(`1 to ${STREAMS_MAX} streams are read at once`)
  if (!names.every((name) => typeof name === "string" && name)) throw new TypeError("a stream's name is a text")
  return names
}

/** Tabs find each other by locks, which pages have over HTTPS and on the own machine. */
const canShare = () => Boolean(globalThis.window && globalThis.navigator?.locks && globalThis.BroadcastChannel)

const join = (resume, delta) => (resume && delta ? `${resume}.${delta}` : resume || delta || "")

/** Works also in pages that are not secure, unlike `randomUUID`. */
function identifier() {
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")
}

const seconds = () => performance.now() / 1000

/** Calls after so many seconds; never, if that is not a number that timers know. */
const after = (wait, then) => (wait * 1000 < 2 ** 31 ? setTimeout(then, wait * 1000) : undefined)

/** Waits, or until the signal is given. */
function sleep(wait, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer)
      signal?.removeEventListener("abort", end)
      resolve()
    }
    const timer = setTimeout(end, wait * 1000)
    if (signal?.aborted) end()
    else signal?.addEventListener("abort", end)
  })
}

const aborted = (signal) => new Promise((resolve) => {
  if (signal.aborted) resolve()
  else signal.addEventListener("abort", resolve, { once: true })
})
