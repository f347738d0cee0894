// Decides which delivery form is used, when, and with which settings. Pure: no IO and no clock. The reader says what happened
// and when, and asks what to do next.
//
// An *attempt* is one poll or one connection. It has a role: `reading`; `probe`, which tries a better form again that was
// given up; or `trial`, a short poll after a failure: if it is answered, the form is to blame and not the network.

import { Fallback } from "./fallback.js"
import { HeartbeatSearch, NetworkMemory } from "./network-memory.js"
import { Backoff } from "./platform.js"
import { FORMS, LIVE_FORMS, SETTINGS } from "./settings.js"

/** @import { EndKind, Form, Network, PolicyOptions, Reason, Settings, Step } from "../../pollgate.d.ts" */
/** @import { End } from "./http.js" */

/**
 * One poll or one connection that is open.
 * @typedef {object} Attempt
 * @property {Form} form
 * @property {"reading" | "probe" | "trial"} role
 * @property {number} since When it began.
 * @property {number} hold The hold time that a long poll asks for, else 0.
 * @property {number} heartbeat
 * @property {number} envelopes How many have come.
 * @property {boolean} upToDate Whether the last envelope reached the tails of the streams.
 * @property {boolean} empty Whether the last envelope had no batches.
 * @property {number | null} heardAt When bytes came last, after the first envelope.
 */

/**
 * A failure of a form that a short poll has to confirm.
 * @typedef {object} Suspicion
 * @property {Form} form
 * @property {Reason} reason
 * @property {number} [cutAfter] After which time a long poll was cut.
 * @property {boolean} [proven] Whether the form is given up even if it has worked before.
 * @property {boolean} [lenient] Whether the form is kept.
 */

/** Makes the decisions of one client about its delivery forms. */
export class Policy {
  /** @type {Settings} */
  #settings
  #fallback
  #memory
  #random
  #emit
  #backoff
  /** @type {Network} The record of the current network in the memory. */
  #network
  /** @type {HeartbeatSearch} */
  #search
  /** @type {Set<Form>} The forms that have worked on this network. */
  #proven = new Set()
  /** @type {Suspicion | null} */
  #suspect = null
  /** @type {Attempt | null} */
  #attempt = null
  /** Failures of the present form in a row. */
  #failures = 0
  /** Long polls in a row that were cut within a second, and later. */
  #quickCuts = 0
  #holdCuts = 0
  /** Connections in a row that went silent and had not outlived a heartbeat. */
  #mutes = 0
  /** Responses in a row that ask for a pause or are not the gateway's. */
  #refusals = 0
  /** Polls in a row without a response. */
  #unanswered = 0
  /** Long polls in a row that were answered at once without a message. */
  #notHeld = 0
  #waitUntil = 0
  #roundTrip = 0

  /** @param {PolicyOptions} options */
  constructor(options = {}) {
    const { forms = FORMS, settings = SETTINGS, memory, network = "", webSocket = true } = options
    const { random = Math.random, emit = () => {} } = options
    this.#settings = settings
    this.#fallback = new Fallback(webSocket ? forms : forms.filter((form) => form !== "websocket"), settings, random)
    this.#memory = new NetworkMemory(memory)
    this.#random = random
    this.#emit = emit
    this.#backoff = new Backoff(settings, random)
    this.#network = this.#memory.of(network)
    this.#search = this.#newSearch()
    this.#begin(0)
    const skipped = forms[0] !== this.#fallback.first
    this.#changeTo(this.form, skipped ? "not_supported" : "start", skipped ? forms[0] : null)
  }

  /** The form in use. */
  get form() {
    return this.#fallback.present
  }

  /** What has been learned, as JSON. */
  memory() {
    return this.#memory.toJSON()
  }

  /** Whether there is a form to use instead of another one. @param {Form} form */
  hasNext(form) {
    return this.#fallback.after(form) !== undefined
  }

  /** How long to wait before the next attempt. @param {number} now */
  delay(now) {
    return Math.max(this.#waitUntil - now, 0)
  }

  /**
   * What to do: wait, or begin an attempt and end it after one of the timeouts.
   * @param {number} now
   * @returns {Step}
   */
  next(now) {
    const wait = this.delay(now)
    if (wait > 0) return { wait }
    if (this.#suspect) return this.#open(now, "short-poll", "trial")
    const better = this.#fallback.due(now)
    return better ? this.#open(now, better, "probe") : this.#open(now, this.form, "reading")
  }

  /** Bytes came after the first envelope. Returns whether to reconnect with another heartbeat. @param {number} now */
  received(now) {
    if (!this.#attempt) return false
    const { form, heartbeat, heardAt } = this.#attempt
    this.#attempt.heardAt = now
    if (!heartbeat || heardAt === null || now - heardAt < 0.9 * heartbeat) return false
    this.#mutes = 0
    if (form !== "websocket") return false
    this.#search.proved(heartbeat)
    this.#learnHeartbeat()
    return this.#search.heartbeat !== heartbeat
  }

  /**
   * An envelope came.
   * @param {number} now
   * @param {{ upToDate?: boolean, empty?: boolean }} envelope
   */
  envelope(now, { upToDate = true, empty = false } = {}) {
    const attempt = this.#attempt
    if (!attempt) return
    attempt.envelopes++
    attempt.upToDate = upToDate
    attempt.empty = empty
    attempt.heardAt ??= now
    this.#backoff.reset()
    if (attempt.envelopes > 1) return
    if (attempt.role !== "trial") this.#refusals = 0
    if (attempt.form !== "long-poll") this.#roundTrip = now - attempt.since
    if (attempt.role === "trial") return
    this.#proven.add(attempt.form)
    this.#network.form = attempt.form
    if (attempt.role === "probe") this.#changeTo(attempt.form, "better")
  }

  /** The attempt has ended. @param {number} now @param {End} end */
  ended(now, { kind, status, retryAfter }) {
    const attempt = this.#attempt
    if (!attempt) return
    const lived = now - attempt.since
    this.#attempt = null
    if (!LIVE_FORMS.has(attempt.form)) this.#unanswered = kind === "mute" ? Math.min(this.#unanswered + 1, 10) : 0
    if (lived >= this.#settings.reprobeAfter && attempt.envelopes) this.#fallback.restore(attempt.form)
    if (kind === "stopped") return
    if (kind === "restart" || kind === "not_gateway") return this.#pause(now, kind, attempt, retryAfter)
    if (attempt.role === "trial") return this.#trialEnded(now, kind)
    if (attempt.form === "short-poll") return this.#shortPollEnded(now, kind, attempt)
    if (attempt.form === "long-poll") return this.#longPollEnded(now, kind, attempt, lived, status)
    this.#liveFormEnded(now, kind, attempt, lived)
  }

  /** The network is another one, or the same one again. @param {number} now @param {string} label */
  networkChanged(now, label = this.#network.label) {
    const from = this.form
    // The same network may have recovered: all forms are tried again, the preferred one first.
    if (label === this.#network.label) this.#network.form = undefined
    this.#network = this.#memory.of(label)
    this.#search = this.#newSearch()
    this.#begin(now)
    this.#backoff.reset()
    if (this.form !== from) this.#changeTo(this.form, "network_changed", from)
  }

  #newSearch() {
    const { heartbeatMin: min, heartbeatMax, idleClock } = this.#settings
    const max = Math.min(heartbeatMax, idleClock === null ? Infinity : idleClock - 5)
    return new HeartbeatSearch({ min: Math.min(min, max), max }, this.#network)
  }

  /** Begins with the form that worked last on this network. @param {number} now */
  #begin(now) {
    this.#fallback.beginWith(this.#network.form, now)
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

  // -- Beginning an attempt.

  /**
   * @param {number} now
   * @param {Form} form
   * @param {Attempt["role"]} role
   * @returns {Step}
   */
  #open(now, form, role) {
    const { hold: longest, heartbeatMin, answerTimeout, backoffMax } = this.#settings
    const hold = form === "long-poll" ? Math.min(this.#network.hold ?? longest, longest) : 0
    const heartbeat = form === "websocket" ? this.#search.heartbeat : Math.min(this.#search.heartbeat, heartbeatMin)
    this.#attempt = { form, role, since: now, hold, heartbeat, envelopes: 0, upToDate: true, empty: true, heardAt: null }
    if (!LIVE_FORMS.has(form)) {
      // After each poll without a response the next one may take longer, as the network may be very slow.
      const patience = Math.max(answerTimeout, 3 * this.#roundTrip) * 2 ** this.#unanswered
      return { form, hold, muteAfter: hold + Math.min(patience, Math.max(backoffMax, answerTimeout)) }
    }
    return {
      form, heartbeat, envelopeWithin: this.#envelopeTimeout(form), muteAfter: 1.5 * heartbeat + this.#roundTrip,
      leaveAfter: role === "reading" ? this.#fallback.nextDue - now + 0.01 : Infinity,
    }
  }

  /** @param {Form} form */
  #envelopeTimeout(form) {
    const { envelopeTimeout, envelopeTimeoutMax } = this.#settings
    const patience = Math.max(envelopeTimeout, 4 * this.#roundTrip)
    return this.#fallback.wasMute(form) ? Math.max(patience, Math.min(2 * patience, envelopeTimeoutMax)) : patience
  }

  // -- Changing the form.

  /** @param {Form} form @param {Reason} reason @param {Form | null} from */
  #changeTo(form, reason, from = this.form) {
    this.#fallback.present = form
    this.#resetCounts()
    this.#emit("form", { from, to: form, reason })
  }

  /** @param {number} now @param {Form} form @param {Reason} reason */
  #giveUp(now, form, reason) {
    this.#fallback.giveUp(form, now, reason === "mute")
    this.#resetCounts()
    if (form !== this.form) return
    const next = this.#fallback.after(form)
    if (next) return this.#changeTo(next, reason)
    // It is the last form: it stays in use.
    this.#fallback.restore(form)
    this.#waitUntil = now + this.#backoff.next()
  }

  /**
   * A form has failed: a short poll brings what there is and shows whether the form is to blame.
   * @param {number} now
   * @param {Suspicion} suspicion
   */
  #suspectForm(now, suspicion) {
    const { form } = suspicion
    if (form !== this.form || this.#fallback.after(form)) this.#suspect = suspicion
    else this.#waitUntil = now + this.#backoff.next()
  }

  /**
   * The short poll after a failure has ended.
   * @param {number} now
   * @param {EndKind} kind
   */
  #trialEnded(now, kind) {
    const suspicion = this.#suspect
    if (!suspicion) return
    const { form, reason, cutAfter, proven, lenient } = suspicion
    this.#suspect = null
    if (kind === "refused") return this.#notGateway(now)
    if (kind !== "answered") return this.#restart(now)
    if (cutAfter !== undefined) return this.#longPollCut(now, cutAfter)
    if (lenient) return
    // A form that has worked may have met a gateway that is starting. One that brings no envelope is being buffered.
    const excused = !proven && this.#proven.has(form) && reason !== "no_envelope" && form === this.form
    if (excused) this.#failed(now, reason)
    else this.#giveUp(now, form, reason)
  }

  /** @param {number} now @param {Reason} reason */
  #failed(now, reason) {
    if (++this.#failures >= 3) this.#suspectForm(now, { form: this.form, reason, proven: true })
    else this.#waitUntil = now + this.#backoff.next()
  }

  // -- How each form ends.

  /** @param {number} now @param {EndKind} kind @param {Attempt} attempt @param {number} lived */
  #liveFormEnded(now, kind, attempt, lived) {
    const { form, heartbeat, envelopes, heardAt } = attempt
    if (envelopes === 0) {
      const reason = /** @type {Reason} */ (kind === "clean" ? "no_envelope" : kind)
      return this.#suspectForm(now, { form, reason })
    }
    if (kind === "mute") return this.#wentMute(now, attempt)
    if (form === "websocket") {
      this.#search.closed(heartbeat, now - (heardAt ?? now))
      this.#learnHeartbeat()
    }
    if (lived < this.#settings.stableAfter) return this.#failed(now, "cut")
    this.#failures = 0
    this.#waitUntil = now + 0.1 * this.#random()
  }

  /** @param {number} now @param {Attempt} attempt */
  #wentMute(now, { form, heartbeat, envelopes }) {
    // Too slow a heartbeat for the network is not the form's fault. A connection that has lived may have lost its address,
    // though not again and again.
    if (form === "websocket" && this.#search.muted(heartbeat)) return
    if (envelopes < 2 || ++this.#mutes >= 3) this.#suspectForm(now, { form, reason: "mute", proven: true })
  }

  /** @param {number} now @param {EndKind} kind @param {Attempt} attempt */
  #shortPollEnded(now, kind, { upToDate }) {
    if (kind === "refused") return this.#notGateway(now)
    if (kind !== "answered") return this.#restart(now)
    this.#waitUntil = upToDate ? now + this.#settings.interval : now
  }

  /** @param {number} now @param {EndKind} kind @param {Attempt} attempt @param {number} lived @param {number} [status] */
  #longPollEnded(now, kind, { hold, empty }, lived, status = 0) {
    const byProxy = [408, 502, 504].includes(status)
    if (kind === "refused" && !byProxy) return this.#suspectForm(now, { form: "long-poll", reason: kind })
    if (kind !== "answered") {
      this.#suspect = { form: "long-poll", reason: "cut", cutAfter: kind === "mute" ? hold : lived }
      this.#waitUntil = now
      return
    }
    this.#holdCuts = this.#quickCuts = 0
    const whole = Math.floor(lived)
    if (whole > (this.#network.holdProven ?? 0)) this.#network.holdProven = whole
    // The first poll is not held if its resume token does not know all streams; if more are not held, a proxy prevents it.
    this.#notHeld = empty && lived < Math.min(1, hold / 2) ? this.#notHeld + 1 : 0
    if (this.#notHeld > 1) this.#waitUntil = now + this.#settings.backoffMin
  }

  /** @param {number} now @param {number} after */
  #longPollCut(now, after) {
    if (after < 1) {
      if (++this.#quickCuts >= 3) return this.#giveUp(now, "long-poll", "cut")
      this.#waitUntil = now + this.#backoff.next()
      return
    }
    const fluke = ++this.#holdCuts === 1 && after <= (this.#network.holdProven ?? 0)
    if (!fluke) this.#network.hold = Math.max(1, Math.floor(0.8 * after))
  }

  // -- Pauses.

  /**
   * The gateway asks for a pause, or something else answers. If only this form gets that, it does not come from the gateway.
   * @param {number} now
   * @param {"restart" | "not_gateway"} kind
   * @param {Attempt} attempt
   * @param {number} [retryAfter]
   */
  #pause(now, kind, { form, role, envelopes }, retryAfter) {
    if (kind === "restart") this.#restart(now, retryAfter)
    else this.#notGateway(now)
    if (role === "trial" || envelopes || form === "short-poll") this.#refusals = 0
    else if (++this.#refusals >= 3) {
      const reason = kind === "restart" ? "refused" : "no_envelope"
      this.#suspect = { form, reason, proven: true, lenient: this.#refusals === 3 }
    }
  }

  /** @param {number} now @param {number} retryAfter */
  #restart(now, retryAfter = Infinity) {
    this.#suspect = null
    // The gateway has closed the connection, not the network.
    this.#search.excuse()
    this.#learnHeartbeat()
    const wait = retryAfter <= this.#settings.reprobeMax ? retryAfter : this.#backoff.next()
    this.#waitUntil = now + wait
    this.#emit("restart", { wait })
  }

  /** @param {number} now */
  #notGateway(now) {
    this.#suspect = null
    const wait = this.#backoff.next()
    this.#waitUntil = now + wait
    this.#emit("not_gateway", { wait })
  }
}
