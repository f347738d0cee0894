// HTTP requests with the caller's headers, and what it means if one fails.
//
// `Transport` sends requests. A failure inside the client is a `Failure`, which the policy judges; what a caller gets to see
// is a `GatewayError`.

/** @import { ClientOptions, EndKind, Problem } from "../../pollgate.d.ts" */

/**
 * The end of a request or a connection. `retryAfter` is in seconds.
 * @typedef {{ kind: EndKind, status?: number, problem?: Problem | null, retryAfter?: number }} End
 */

/** The gateway, or a proxy before it, refused something for good. */
export class GatewayError extends Error {
  /**
   * @param {number} status
   * @param {Problem | null} problem The problem document (RFC 9457), if the response had one.
   */
  constructor(status, problem = null) {
    super(describe(status, problem?.detail ?? problem?.title))
    this.name = "GatewayError"
    this.status = status
    this.problem = problem
  }
}

/** Whether a refusal is the gateway's own, not that of a proxy before it. @param {Problem | null | undefined} problem */
export const isOfGateway = (problem) => Boolean(problem?.type?.startsWith("urn:pollgate:"))

/**
 * @param {number} status
 * @param {string | undefined} detail What the response says.
 */
function describe(status, detail) {
  if (status === 401) return `401 Unauthorized: ${detail ?? "the token or the headers are missing, expired or invalid"}`
  if (status === 403) return `403 Forbidden: ${detail ?? "the token or the headers do not allow this"}`
  return detail ?? `the gateway, or a proxy before it, answered ${status}`
}

/**
 * The end of a request or a connection, as an exception.
 * @implements {End}
 */
export class Failure extends Error {
  /**
   * @param {EndKind} kind
   * @param {Omit<End, "kind">} details
   */
  constructor(kind, { status, problem, retryAfter } = {}) {
    super(kind)
    this.kind = kind
    this.status = status
    this.problem = problem
    this.retryAfter = retryAfter
  }

  /**
   * The failure behind an exception of `fetch` or of a response body.
   * @param {unknown} error
   */
  static from(error) {
    if (error instanceof Failure) return error
    const { cause } = /** @type {{ cause?: { code?: string, errors?: { code?: string }[] } }} */ (error ?? {})
    const codes = [cause?.code, ...(cause?.errors ?? []).map(({ code }) => code)]
    return new Failure(codes.some((code) => code !== undefined && UNREACHABLE.has(code)) ? "restart" : "cut")
  }
}

/** The codes of Node's errors if nothing listens at the address. Browsers do not tell. */
const UNREACHABLE = new Set(["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "ENETUNREACH"])

/** Statuses that pass, though they are the client's fault by their number. */
const PASSING = new Set([408, 426, 429])

/**
 * Whether it is of no use to repeat a request: the gateway itself refused it, or the credentials are not accepted. 403 from a
 * proxy may be about one delivery form alone, so that it is not final while there is another one to try.
 * @param {End} end
 * @param {boolean} hasNext Whether there is.
 */
export function isFinal({ kind, status = 0, problem }, hasNext = false) {
  if (kind !== "refused") return false
  if (status === 401 || (status === 403 && !hasNext)) return true
  return isOfGateway(problem) && status >= 400 && status < 500 && !PASSING.has(status)
}

/** Statuses that say "not yet": timeout, too early, too many requests. */
const LATER = new Set([408, 425, 429])

/**
 * Whether repeating an append cannot succeed after this refusal, from the gateway or from a proxy in between.
 * @param {End} end
 */
export function isFinalForAppend({ kind, status = 0 }) {
  if (kind !== "refused") return false
  return (status >= 400 && status < 500 && !LATER.has(status)) || status === 501 || status === 505
}

/**
 * The failure that a response with an error is. Reads or discards its body.
 * @param {Response} response
 */
export async function refusal(response) {
  const { status } = response
  const delay = Number(response.headers.get("retry-after") || NaN)
  const retryAfter = Number.isFinite(delay) && delay >= 0 ? delay : undefined
  const isProblem = contentTypeOf(response) === "application/problem+json"
  /** @type {Problem | null} */
  const problem = isProblem ? await response.json().catch(() => null) : null
  // A body that is not read would keep its connection.
  if (!problem) response.body?.cancel().catch(() => {})
  if (status === 503 || status === 429) return new Failure("restart", { status, problem, retryAfter })
  return new Failure(response.ok ? "not_gateway" : "refused", { status, problem, retryAfter })
}

/**
 * A content type in lower case and without parameters.
 * @param {string} contentType
 */
export const essenceOf = (contentType) => contentType.replace(/;.*/s, "").trim().toLowerCase()

/**
 * The content type of a response, in lower case and without parameters.
 * @param {Response} response
 */
export const contentTypeOf = ({ headers }) => essenceOf(headers.get("content-type") ?? "")

/** Sends requests to one gateway. */
export class Transport {
  /** The URL of the gateway, which ends with a slash. */
  base
  /** The constructor of WebSockets; `undefined` if there is none, or if requests have headers, which it cannot send. */
  WebSocket
  /** Whether the caller sets headers. A token is none: a WebSocket sends it in a frame. */
  hasHeaders
  /** Whether to ask for the times of messages. */
  times
  #fetch
  #headers
  #token
  /** @type {string | undefined} The last token. */
  #last
  /** @type {string | undefined} The last token, if it was refused. */
  #refused

  /**
   * @param {URL} base
   * @param {ClientOptions} options
   */
  constructor(base, options) {
    const { fetch = (...request) => globalThis.fetch(...request), headers, token } = options
    this.base = base
    this.#fetch = fetch
    this.#headers = headers
    this.#token = token
    this.times = options.times === true
    this.hasHeaders = headers !== undefined
    const available = "WebSocket" in options ? options.WebSocket : globalThis.WebSocket
    this.WebSocket = this.hasHeaders ? undefined : available
  }

  /** The caller's headers for one request. Rejects with what a function of the caller throws. */
  async headers() {
    const given = typeof this.#headers === "function" ? await this.#headers() : this.#headers
    const token = await this.token()
    const headers = new Headers(given)
    if (token) headers.set("authorization", `Bearer ${token}`)
    return headers
  }

  /** The caller's token. Rejects with what its function throws. */
  async token() {
    const token = typeof this.#token === "function" ? await this.#token(this.#refused) : this.#token
    this.#refused = undefined
    this.#last = token ?? undefined
    return token
  }

  /**
   * Whether another token is worth a try after this end: it was about the token, and a function brings tokens. The caller tries it
   * once.
   * @param {End} end
   */
  renews({ kind, status }) {
    if (kind !== "refused" || status !== 401 || typeof this.#token !== "function") return false
    this.#refused = this.#last
    return true
  }

  /**
   * Sends one request. Its own headers replace those of the caller.
   * @param {string} target
   * @param {Headers} callersHeaders From `headers()`.
   * @param {{ method?: string, body?: BodyInit, headers?: Record<string, string>, signal: AbortSignal }} init
   */
  fetch(target, callersHeaders, { headers: own = {}, ...init }) {
    const headers = new Headers(callersHeaders)
    for (const [name, value] of Object.entries(own)) headers.set(name, value)
    return this.#fetch(target, { ...init, headers, cache: "no-store" })
  }
}
