// What can be set, with its defaults, and the checks of what a caller passes.

/** @import { Form, Settings } from "../../pollgate.d.ts" */

/**
 * The delivery forms, the preferred one first.
 * @type {readonly Form[]}
 */
export const FORMS = Object.freeze(/** @type {const} */ (["websocket", "sse", "ndjson", "long-poll", "short-poll"]))

/**
 * The forms in which one response or connection brings many envelopes.
 * @type {ReadonlySet<Form>}
 */
export const LIVE_FORMS = new Set(/** @type {const} */ (["websocket", "sse", "ndjson"]))

/** The most streams that one request reads. */
export const STREAMS_MAX = 1000

/**
 * The defaults. Times are seconds.
 * @type {Readonly<Settings>}
 */
export const SETTINGS = Object.freeze({
  /** How long a live form may take until its first envelope, or four round trips if those take longer. */
  envelopeTimeout: 2,
  /** The same for a form that is tried again after it went silent. */
  envelopeTimeoutMax: 10,
  /** A live form that ends earlier than this has failed. */
  stableAfter: 5,
  /** When a form that was given up is tried again; doubles up to `reprobeMax`. */
  reprobeAfter: 60,
  reprobeMax: 600,
  /** Wait after a failure; doubles from the first to the second. */
  backoffMin: 0.25,
  backoffMax: 30,
  /** Time between two short polls. */
  interval: 5,
  /** Hold time that a long poll asks for; whole seconds. */
  hold: 25,
  /** How long the response to a poll may be late after its hold time, or three round trips if those take longer. */
  answerTimeout: 5,
  /** The range in which the heartbeat of a WebSocket is searched; whole seconds. */
  heartbeatMin: 15,
  heartbeatMax: 300,
  /** After how many seconds of silence a proxy or NAT on the way is known to cut; `null` if unknown. */
  idleClock: null,
  /** Messages that may wait for a slow handler; beyond this the subscription leaves the shared connection and polls. */
  queueMax: 1000,
})

/**
 * Checks the delivery forms that a caller allows.
 * @param {readonly Form[] | undefined} forms
 * @param {{ webSocket: boolean, headers: boolean }} platform Whether there is a WebSocket; whether requests have headers.
 */
export function parseForms(forms = FORMS, { webSocket, headers }) {
  if (!forms.length || !forms.every((form) => FORMS.includes(form))) {
    throw new TypeError(`forms are ${FORMS.join(", ")}, at least one`)
  }
  if (forms.some((form) => form !== "websocket")) return forms
  if (headers) throw new TypeError("a WebSocket cannot send headers or a token: allow another form")
  if (!webSocket) throw new TypeError("there is no WebSocket on this platform: allow another form")
  return forms
}

/**
 * Checks the names of streams and leaves out those that are repeated.
 * @param {string | readonly string[]} streams
 */
export function parseStreams(streams) {
  const names = [...new Set(typeof streams === "string" ? [streams] : streams)]
  if (!names.length || names.length > STREAMS_MAX) throw new RangeError(`1 to ${STREAMS_MAX} streams are read at once`)
  if (!names.every((name) => typeof name === "string" && name)) {
    throw new TypeError("the name of a stream is a string that is not empty")
  }
  return names
}
