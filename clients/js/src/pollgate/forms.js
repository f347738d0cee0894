// Reads streams in each delivery form: builds the request, and turns the response into envelopes. One call reads one response
// or one connection; `reader.js` decides what comes after it.

/** @import { Form } from "../../pollgate.d.ts" */
/** @import { End, Transport } from "./http.js" */

import { contentTypeOf, Failure, refusal } from "./http.js"
import { after, unlessAborted } from "./platform.js"
import { LIVE_FORMS } from "./settings.js"

/**
 * Messages of one stream, as the gateway sends them. `data` has the values of a JSON stream, the texts of a `text/*` stream
 * or else base64. `streamNextOffset` is the offset behind them.
 * @typedef {object} Batch
 * @property {string} stream
 * @property {unknown[]} [data]
 * @property {string} [contentType] `application/json` if left out.
 * @property {string} [streamNextOffset]
 * @property {string} [gap] Which messages are no longer kept.
 * @property {boolean} [missing] Whether the stream does not exist.
 * @property {boolean} [forbidden] Whether the token does not grant the stream.
 * @property {boolean} [streamClosed]
 * @property {number[]} [times] When each item of `data` was appended, in milliseconds since 1970.
 */

/**
 * What the gateway sends at once. It has a full resume token, or what is to be added to the last one.
 * @typedef {object} Envelope
 * @property {Batch[]} batches
 * @property {string} [resume]
 * @property {string} [resumeDelta]
 * @property {boolean} upToDate Whether it reaches the tails of the streams.
 */

/**
 * What to read.
 * @typedef {object} ReadRequest
 * @property {string[]} streams
 * @property {string | null} resume The resume token.
 * @property {string} [from] Where streams begin that the resume token does not know: `earliest`, or `last:` and a number of messages.
 * @property {string} [client] Names the client's wait queue.
 * @property {string} [device] The id of the registered device, which takes the place of `client` and is sent in every form.
 */

/**
 * What to read, and how.
 * @typedef {ReadRequest & { form: Form, headers: Headers, hold?: number, heartbeat?: number }} FormRequest
 */

/**
 * Called while a response is read: for bytes of any kind, and for each envelope.
 * @typedef {{ bytes: () => void, envelope: (envelope: Envelope) => void }} Hooks
 */

/** Requests with longer targets are sent as POST, or in the first frame of a WebSocket. */
const TARGET_BYTES_MAX = 2048

/** The close code of the gateway for a token that is missing, refused or expired. */
const UNAUTHORIZED = 4401

/** How many seconds before its end a token is renewed on an open WebSocket; at half of its life if that is later. */
const RENEWAL_MARGIN = 30

/** How long a short poll outside of the policy may be silent. */
const POLL_TIMEOUT = 10

/**
 * Reads one response or connection until it ends. Rejects with a `Failure`, or with what `fetch` threw.
 * @param {Transport} transport
 * @param {FormRequest} request
 * @param {Hooks} hooks
 * @param {AbortSignal} signal
 * @returns {Promise<End>}
 */
export function read(transport, request, hooks, signal) {
  switch (request.form) {
    case "websocket":
      return readWebSocket(transport, request, hooks, signal)
    case "sse":
      return readLines(transport, request, "text/event-stream", sseParser(hooks), hooks, signal)
    case "ndjson": {
      /** @param {string} line */
      const onLine = (line) => void (line && hooks.envelope(parseEnvelope(line)))
      return readLines(transport, request, "application/x-ndjson", onLine, hooks, signal)
    }
    default:
      return readPoll(transport, request, hooks, signal)
  }
}

/**
 * One short poll on its own, outside of the policy; another one if its token was refused and there may be a new one.
 * @param {Transport} transport
 * @param {ReadRequest} request
 * @param {AbortSignal} signal
 * @returns {Promise<Envelope>}
 */
export async function poll(transport, request, signal) {
  try {
    return await pollOnce(transport, request, signal)
  } catch (error) {
    if (error instanceof Failure && transport.renews(error)) return pollOnce(transport, request, signal)
    throw error
  }
}

/** @type {typeof poll} */
async function pollOnce(transport, request, signal) {
  const headers = await unlessAborted(transport.headers(), signal)
  if (!headers) throw new Failure("stopped")
  const stop = new AbortController()
  const leave = () => stop.abort(new Failure("stopped"))
  signal.addEventListener("abort", leave, { once: true })
  const tooLate = () => stop.abort(new Failure("mute"))
  let timer = after(POLL_TIMEOUT, tooLate)
  /** @type {Envelope[]} */
  const envelopes = []
  const hooks = {
    bytes: () => {
      clearTimeout(timer)
      timer = after(POLL_TIMEOUT, tooLate)
    },
    envelope: (/** @type {Envelope} */ envelope) => void envelopes.push(envelope),
  }
  try {
    await readPoll(transport, { ...request, form: "short-poll", headers }, hooks, stop.signal)
    return envelopes[0]
  } catch (error) {
    throw stop.signal.aborted ? stop.signal.reason : Failure.from(error)
  } finally {
    clearTimeout(timer)
    signal.removeEventListener("abort", leave)
  }
}

// -- The forms.

/** @type {typeof read} */
async function readPoll(transport, request, hooks, signal) {
  const response = await send(transport, request, "application/json", signal)
  hooks.bytes()
  let text = ""
  for await (const part of textOf(response)) {
    hooks.bytes()
    text += part
  }
  hooks.envelope(parseEnvelope(text))
  return { kind: "answered" }
}

/**
 * Reads a response that does not end, line by line.
 * @param {Transport} transport
 * @param {FormRequest} request
 * @param {string} contentType
 * @param {(line: string) => void} onLine
 * @param {Hooks} hooks
 * @param {AbortSignal} signal
 * @returns {Promise<End>}
 */
async function readLines(transport, request, contentType, onLine, hooks, signal) {
  const response = await send(transport, request, contentType, signal)
  hooks.bytes()
  let rest = ""
  for await (const part of textOf(response)) {
    hooks.bytes()
    const lines = (rest + part).split("\n")
    rest = lines.pop() ?? ""
    for (const line of lines) onLine(line.endsWith("\r") ? line.slice(0, -1) : line)
    if (signal.aborted) throw signal.reason
  }
  return { kind: "clean" }
}

/**
 * Parses the lines of server-sent events. Only their data matters: each event of many streams is an envelope.
 * @param {Hooks} hooks
 */
function sseParser(hooks) {
  /** @type {string[]} */
  let data = []
  return (/** @type {string} */ line) => {
    if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5))
    if (line !== "" || !data.length) return
    const text = data.join("\n")
    data = []
    hooks.envelope(parseEnvelope(text))
  }
}

/** @type {typeof read} */
async function readWebSocket(transport, request, hooks, signal) {
  const { WebSocket } = transport
  if (!WebSocket) return { kind: "not_upgraded" }
  const { target, body } = encode(transport, request)
  target.protocol = target.protocol.replace("http", "ws")
  const socket = new WebSocket(target)
  const token = request.headers.get("authorization")?.replace(/^Bearer /i, "")
  return new Promise((resolve) => {
    let opened = false
    /** @type {ReturnType<typeof after>} */
    let renewal
    // A token that cannot be renewed ends the connection in time, and the next attempt tells why.
    const renew = () =>
      transport.token().then(
        (next) => void (next && socket.readyState === 1 && socket.send(JSON.stringify({ auth: next }))),
        () => {},
      )
    /** @param {End} outcome */
    const end = (outcome) => {
      socket.onopen = socket.onmessage = socket.onclose = null
      signal.removeEventListener("abort", leave)
      clearTimeout(renewal)
      socket.close()
      resolve(outcome)
    }
    const leave = () => end(signal.reason)
    signal.addEventListener("abort", leave)
    socket.onerror = () => {}
    socket.onopen = () => {
      opened = true
      hooks.bytes()
      if (token) socket.send(JSON.stringify({ auth: token }))
      if (body) socket.send(JSON.stringify(body))
    }
    socket.onmessage = ({ data }) => {
      try {
        const accepted = parseAuthorized(data)
        if (accepted) {
          hooks.bytes()
          clearTimeout(renewal)
          renewal = after(untilRenewal(accepted.expiresIn), renew)
          return
        }
        const envelope = parseEnvelope(data)
        hooks.bytes()
        hooks.envelope(envelope)
      } catch (error) {
        end(Failure.from(error))
      }
    }
    socket.onclose = ({ code }) => {
      if (code === 1012 || code === 1013) end({ kind: "restart" })
      else if (code === 1000 || code === 1001) end({ kind: "clean" })
      else if (code === UNAUTHORIZED) end({ kind: "refused", status: 401 })
      else end({ kind: opened ? "cut" : "not_upgraded" })
    }
    if (signal.aborted) leave()
  })
}

// -- Requests and responses.

/**
 * The URL of a request, and its body if the URL would be too long.
 * @param {Transport} transport
 * @param {FormRequest} request
 */
function encode({ base, times }, { form, streams, resume, from, hold, heartbeat, client, device }) {
  const target = new URL("v1/streams", base)
  const fields = {
    resume: resume || undefined,
    from,
    times: times ? 1 : undefined,
    timeout: hold || undefined,
    client: device ?? (hold ? client : undefined),
    heartbeat: LIVE_FORMS.has(form) ? heartbeat : undefined,
  }
  const live = form === "short-poll" ? undefined : form
  const query = new URLSearchParams(streams.map((stream) => ["stream", stream]))
  for (const [name, value] of Object.entries({ ...fields, live })) if (value !== undefined) query.append(name, `${value}`)
  target.search = `${query}`
  if (target.pathname.length + target.search.length < TARGET_BYTES_MAX) return { target }
  target.search = form === "websocket" ? "?live=websocket" : ""
  return { target, body: { stream: streams, ...fields, ...(form === "websocket" ? {} : { live }) } }
}

/**
 * Sends a request and returns the response once its head has shown that it is the gateway's.
 * @param {Transport} transport
 * @param {FormRequest} request
 * @param {string} contentType
 * @param {AbortSignal} signal
 */
async function send(transport, request, contentType, signal) {
  const { target, body } = encode(transport, request)
  const post = body && { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } }
  const response = await transport.fetch(target.href, request.headers, { ...post, signal })
  if (response.status === 200 && contentTypeOf(response) === contentType && response.body) return response
  throw await refusal(response)
}

/**
 * The text of a response, in the pieces that it comes in.
 * @param {Response} response
 */
async function* textOf({ body }) {
  if (!body) return
  const reader = body.getReader()
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

/**
 * The gateway's answer to a token in a frame; `undefined` for any other frame.
 * @param {string} text
 * @returns {{ expiresIn: number | null } | undefined}
 */
const parseAuthorized = (text) => (text.startsWith('{"authorized":') ? JSON.parse(text).authorized : undefined)

/**
 * When to send the next token, in seconds.
 * @param {number | null} expiresIn
 */
const untilRenewal = (expiresIn) => (expiresIn === null ? Infinity : expiresIn - Math.min(expiresIn / 2, RENEWAL_MARGIN))

/**
 * Parses an envelope.
 * @param {string} text
 * @returns {Envelope}
 */
function parseEnvelope(text) {
  let value
  try {
    value = JSON.parse(text)
  } catch {
    // Behind the right content type, text that is not JSON was cut off.
    throw new Failure("cut")
  }
  if (value?.error) throw new Failure("refused", { status: value.error.status, problem: value.error })
  /** @param {Partial<Batch> | null} batch */
  const isBatch = (batch) => typeof batch?.stream === "string"
  if (!Array.isArray(value?.batches) || !value.batches.every(isBatch)) throw new Failure("not_gateway")
  return { ...value, upToDate: value.upToDate === true }
}
