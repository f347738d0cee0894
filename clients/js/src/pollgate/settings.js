// What can be set, with its defaults, and the checks of what a caller passes.

/** @import { ClientOptions, Form, Settings, SubscribeOptions } from "../../pollgate.d.ts" */

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
  /** Messages that may wait to be published, and their size in bytes (of text: in characters). */
  publishQueueMax: 10_000,
  publishQueueBytesMax: 16 * 1024 * 1024,
})

/** @satisfies {Record<keyof ClientOptions, true>} */
const CLIENT_OPTIONS = {
  forms: true, settings: true, memory: true, network: true, storage: true, headers: true, token: true, share: true, times: true,
  fetch: true, WebSocket: true,
}

/** @satisfies {Record<keyof SubscribeOptions, true>} */
const SUBSCRIBE_OPTIONS = { resumeToken: true, from: true, history: true }

/**
 * Refuses options that do not exist, which are mostly mistyped.
 * @param {object} options
 * @param {object} known
 */
export function checkNames(options, known) {
  const unknown = Object.keys(options).find((name) => !Object.hasOwn(known, name))
  if (unknown !== undefined) throw new TypeError(`there is no option ${unknown}; the options are ${Object.keys(known).join(", ")}`)
}

/**
 * Checks the URL of a gateway. Its path ends with a slash then, so that targets are relative to it.
 * @param {string | URL} url
 */
export function parseUrl(url) {
  // Without what the page's own URL has of credentials, as a relative URL would inherit them.
  const page = globalThis.location && new URL(globalThis.location.href)
  if (page) page.username = page.password = ""
  // A URL that may contain a password is not shown.
  const shown = `${url}`.includes("@") ? "this" : `${url}`
  let base
  try {
    base = new URL(url, page)
  } catch {
    throw new TypeError(`${shown} is not a URL such as https://gateway.example`)
  }
  base.protocol = base.protocol.replace(/^ws/, "http")
  if (base.username || base.password) {
    throw new TypeError(
      "the URL contains a user name or a password, which is not sent: leave it out of the URL, and set the option " +
        "`token`, or `headers: { authorization: \"Basic \" + btoa(\"user:password\") }`",
    )
  }
  if (!/^https?:$/.test(base.protocol)) throw new TypeError(`${shown} does not begin with https:// or http://`)
  if (!base.pathname.endsWith("/")) base.pathname += "/"
  return base
}

/**
 * Checks the options of a client.
 * @param {ClientOptions} options
 */
export function checkOptions(options) {
  checkNames(options, CLIENT_OPTIONS)
  const { fetch, storage } = options
  if (fetch !== undefined && typeof fetch !== "function") throw new TypeError("`fetch` is a function")
  if (storage && !(typeof storage.getItem === "function" && typeof storage.setItem === "function")) {
    throw new TypeError("`storage` has the methods getItem and setItem, as localStorage has")
  }
}

/**
 * Checks settings and completes them with the defaults.
 * @param {Partial<Settings>} given
 * @returns {Settings}
 */
export function parseSettings(given = {}) {
  checkNames(given, SETTINGS)
  for (const [name, value] of Object.entries(given)) {
    const isTime = typeof value === "number" && value >= 0
    if (!isTime && !(value === null && name === "idleClock")) throw new TypeError(`the setting ${name} is a number, at least 0`)
  }
  return { ...SETTINGS, ...given }
}

/**
 * Checks the options and the handler of a subscription. Returns where streams begin that the resume token does not cover.
 * @param {SubscribeOptions} options
 * @param {unknown} handler
 */
export function parseStart(options, handler) {
  if (handler !== undefined && typeof handler !== "function") throw new TypeError("the handler is a function, or left out")
  checkNames(options, SUBSCRIBE_OPTIONS)
  const { resumeToken, from, history } = options
  if (resumeToken !== undefined && typeof resumeToken !== "string") throw new TypeError("`resumeToken` is a string")
  if (from !== undefined && from !== "earliest") throw new TypeError("`from` is \"earliest\" or left out")
  if (history === undefined) return from
  if (from !== undefined) throw new TypeError("`history` and `from` exclude each other")
  if (!Number.isSafeInteger(history) || history < 0) throw new TypeError("`history` is a number of messages")
  return `last:${history}`
}

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
  if (headers) throw new TypeError("a WebSocket cannot send headers: allow another form")
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
