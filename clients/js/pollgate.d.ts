// Types of pollgate.js. All times are seconds.

/** Delivery forms. */
export type Form = "websocket" | "sse" | "ndjson" | "long-poll" | "short-poll"

/** All delivery forms, the preferred one first. */
export const FORMS: readonly Form[]

/** Why the form has changed. */
export type Reason =
  | "start" | "not_supported" | "not_upgraded" | "refused" | "no_envelope" | "mute" | "cut" | "better" | "network_changed"

/** What can be set. `SETTINGS` has the defaults. */
export interface Settings {
  /** How long a live form may take until its first envelope, or four round trips if those take longer. */
  envelopeTimeout: number
  /** The same for a form that is tried again after it went silent. */
  envelopeTimeoutMax: number
  /** A live form that ends earlier than this has failed. */
  stableAfter: number
  /** When a form that was given up is tried again; doubles up to `reprobeMax`. */
  reprobeAfter: number
  reprobeMax: number
  /** Wait after a failure; doubles from `backoffMin` to `backoffMax`. */
  backoffMin: number
  backoffMax: number
  /** Time between two short polls. */
  interval: number
  /** Hold time that a long poll asks for; whole seconds. */
  hold: number
  /** How long the response to a poll may be late after its hold time, or three round trips if those take longer. */
  answerTimeout: number
  /** The range in which the heartbeat of a WebSocket is searched; whole seconds. */
  heartbeatMin: number
  heartbeatMax: number
  /** After how many seconds of silence a proxy or NAT on the way is known to cut; `null` if unknown. */
  idleClock: number | null
  /** Messages that may wait for a slow handler; beyond this the subscription leaves the shared connection and polls. */
  queueMax: number
  /** Messages that may wait to be published; beyond this `publish` rejects with a `QueueFullError`. */
  publishQueueMax: number
  /** The same for their size in bytes, of text in characters. A larger message is accepted while no other one waits. */
  publishQueueBytesMax: number
}

/** The defaults. */
export const SETTINGS: Readonly<Settings>

/** What was learned of one network. */
export interface Network {
  label: string
  /** The form that worked last. */
  form?: Form
  /** Hold time of long polls, if a proxy cuts those that are held longer. */
  hold?: number
  /** The longest hold time that was answered. */
  holdProven?: number
  /** The slowest heartbeat of a WebSocket that works, and the fastest one that fails. */
  heartbeatLo?: number
  heartbeatHi?: number
}

/** What was learned of networks, the one that was used last first. */
export interface Memory {
  networks: Network[]
}

export interface ClientOptions {
  /** Delivery forms that may be used, the preferred one first; all of them if left out. */
  forms?: readonly Form[]
  settings?: Partial<Settings>
  /** What an earlier client has learned of networks, by `memory()`. With it, nothing is read from or written to `storage`. */
  memory?: Memory
  /**
   * Where what was learned of networks is kept for the next client of the same gateway and the same forms. The page's
   * `localStorage` if left out; Node and workers have none. `null` keeps nothing.
   */
  storage?: Pick<Storage, "getItem" | "setItem"> | null
  /** The label of the network, such as the name of a Wi-Fi; empty if left out. */
  network?: string
  /**
   * Header fields of all requests: an object, or a function that returns one or a promise of one and is called before each
   * request. If the function throws or rejects, the subscriptions and the publication that need it end with that error.
   *
   * A WebSocket cannot send header fields, neither in browsers nor in Node, so a client with `headers` does not use that form. It
   * uses the other ones, which are all read by `fetch`. A page of another origin may send the fields that
   * the gateway's CORS preflight allows: it allows all of them.
   */
  headers?: HeadersSource | (() => HeadersSource | undefined | Promise<HeadersSource | undefined>)
  /**
   * A token, sent as `Authorization: Bearer …`, or a function that returns one or a promise of one, for tokens that expire; see
   * `headers` for when it is called. No token is sent while there is none. A WebSocket sends it in its first frame, and asks the
   * function for another one before it expires.
   *
   * After a 401 the function is called again, once, with the token that was refused. If that is of no use, or after 403,
   * subscriptions and publications end with a `GatewayError` of that status. (While another form is left, 403 from a proxy only
   * ends the use of the form that gets it.)
   */
  token?: string | ((refused?: string) => string | null | undefined | Promise<string | null | undefined>)
  /**
   * Whether the tabs of this origin share one connection. On where there are Web Locks and BroadcastChannel (pages over HTTPS
   * or of localhost), else off. A string names a group: tabs of one group must have the same options and act for the same user.
   */
  share?: boolean | string
  /** Whether messages have their time, which takes about 15 bytes of each. */
  times?: boolean
  /** Used instead of the global ones. Node 20 has no `WebSocket`; without one, that form is skipped. */
  fetch?: typeof fetch
  WebSocket?: typeof WebSocket
}

/** Header fields by name. */
export type HeadersSource = Record<string, string> | Headers

/** A message. */
export interface Message<T = any> {
  stream: string
  /** A value of a JSON stream, a string of a `text/*` stream, otherwise a `Uint8Array`. */
  data: T
  contentType: string
  /**
   * The offset behind the message: a read from there begins with the next message. Appends to a `text/*` stream may arrive as
   * one message, which has the offset behind the last of them.
   */
  offset?: string
  /** When it was appended, by the clock of the gateway; only with the option `times`. */
  time?: Date
}

/** If it throws or rejects, the subscription ends with that error, and its resume token stays. */
export type Handler<T = any> = (message: Message<T>) => unknown

export interface SubscribeOptions {
  /** Where to go on: an earlier `Subscription.resumeToken`. Streams that it does not cover begin now, or as `from` says. */
  resumeToken?: string
  from?: "earliest"
  /**
   * Begins streams that the resume token does not cover with their last messages, this many of each or all that are kept. In
   * streams that are not JSON, appends that lie within the last 64 KiB count.
   */
  history?: number
}

export interface Subscription<T = any> {
  readonly streams: string[]
  /** Behind the last envelope whose messages have all been handled. Empty until the gateway has answered. */
  readonly resumeToken: string
  /** Resolves when the subscription was closed, rejects with the error that ended it. */
  readonly closed: Promise<void>
  /** Ends it: no further message is handed out. */
  close(): void
  /** Messages, if there is no handler. A message counts as handled when the next one is asked for. */
  [Symbol.asyncIterator](): AsyncIterator<Message<T>, undefined>
}

export interface PublishOptions {
  /** `application/json` if left out. Other types take a string or bytes as they are. */
  contentType?: string
  /** Whether to create the stream if it does not exist. */
  create?: boolean
}

/** A way in which the gateway can wake a device, as its operator has set it up. */
export interface WakeApp {
  app: string
  /** Such as `web-push`, `fcm` or `sms`. */
  provider: string
  /** What a channel of the app has as `credential`: the provider's token, a push subscription, or a phone number. */
  credential: "token" | "web-push" | "phone"
  /** For Web Push: the `applicationServerKey` of `pushManager.subscribe`. */
  publicKey?: string
}

/** A device that sleeps, and how to wake it. It needs a push subscription or a channel. */
export interface DeviceRegistration {
  /** An id of the caller's, which stays the same for the device. */
  id: string
  /** What it reads: names, or offsets by name. `null` is what the gateway knows, else the tail; `"now"` the tail. At most 64. */
  streams: string | readonly string[] | Record<string, string | null>
  /** Wakes a browser by Web Push: what `pushManager.subscribe` returns. It is the first channel. */
  pushSubscription?: PushSubscription | PushSubscriptionJSON
  /** The app of the push subscription. If left out, the one whose key the subscription was made with. */
  app?: string
  /** Further channels, in the order in which they are tried. */
  channels?: readonly { app: string; credential: string | PushSubscriptionJSON }[]
  /** Hours without a wake, as `HH:MM`, with the minutes that the device is ahead of UTC. */
  quiet?: { from: string; to: string; utcOffset?: number }
  /** Seconds until the next channel is tried; 60 if left out, 0 for never. */
  escalateAfter?: number
  /** Seconds until the registration ends; 30 days if left out. */
  expiresIn?: number
}

/** The `detail` of a client's events. */
export interface Events {
  /** Another form is used. `from` is null at the start. */
  form: { from: Form | null; to: Form; reason: Reason }
  /** Messages are no longer kept; `gap` is what the gateway says, such as `reason=trimmed; missed=3`. */
  gap: { subscription: Subscription; stream: string; gap: string }
  /** The stream does not exist; the subscription waits for it. */
  missing: { subscription: Subscription; stream: string }
  /** The token does not grant this stream, of several. The subscription reads it, too, once a later token does. */
  forbidden: { subscription: Subscription; stream: string }
  /** Nothing will follow on the stream. */
  closed: { subscription: Subscription; stream: string }
  /** The gateway cannot be reached or asks for a pause; the next attempt is in `wait`. */
  restart: { wait: number }
  /** Something else answers, such as a captive portal; the next attempt is in `wait`. */
  not_gateway: { wait: number }
  /** A subscription has ended with an error. */
  error: { subscription: Subscription; error: Error }
}

/** A problem document (RFC 9457). */
export interface Problem {
  type?: string
  title?: string
  status?: number
  detail?: string
}

/**
 * The gateway, or a proxy before it, refused something for good. A subscription ends with 401, 403 or another status with the
 * gateway's reason; a publication is rejected with any status that no repetition can change: 400 to 499 except 408, 425 and 429,
 * and 501 and 505.
 */
export class GatewayError extends Error {
  constructor(status: number, problem?: Problem | null)
  readonly status: number
  /** What the gateway says about it; `null` if the response had no problem document. */
  readonly problem: Problem | null
}

/** Too much waits to be published, and the message is not sent. */
export class QueueFullError extends Error {
  constructor(messages: number, bytes: number)
}

/** A client of one gateway. Nothing is sent before the first subscription or publication. */
export class Client extends EventTarget {
  /** Throws a `TypeError` if the URL or an option is wrong. A URL must not contain a password. */
  constructor(url: string | URL, options?: ClientOptions)
  /** Reads streams from `resumeToken` on. Without a handler: `for await (const message of subscription)`. */
  subscribe<T = any>(streams: string | string[], handler?: Handler<T>): Subscription<T>
  subscribe<T = any>(streams: string | string[], options: SubscribeOptions, handler?: Handler<T>): Subscription<T>
  /**
   * Appends a message and resolves with the offset behind it. The request is repeated until the gateway has acknowledged it or
   * refused it for good, and the message is in the stream once, however often it was sent. A message that is refused after an
   * attempt whose response was lost may be in the stream. Rejects with a `QueueFullError` if too much waits.
   */
  publish(stream: string, data: unknown, options?: PublishOptions): Promise<string>
  /** Resolves when at most half of what may wait to be published does. */
  room(): Promise<void>
  /** The apps with which the gateway can wake a device. */
  wakeApps(): Promise<WakeApp[]>
  /**
   * Registers this client as a device, or replaces its registration: do it at each start. The gateway wakes the device when
   * something lies behind its offset and it is not connected. From this call on, the reads of the client, and of the tabs that
   * share its connection, have the id of the device. The request is repeated until the gateway has answered it.
   */
  registerDevice(registration: DeviceRegistration): Promise<void>
  /** Forgets a device, if the gateway knows it. */
  unregisterDevice(id: string): Promise<void>
  /** The network is another one, or the same one again without a label. */
  networkChanged(label?: string): void
  /** What was learned of networks, for the constructor of a later client where there is no `storage`. */
  memory(): Memory
  /** Ends all subscriptions, and what was not acknowledged or answered yet is rejected. */
  close(): void
  addEventListener<K extends keyof Events>(
    type: K, listener: (event: CustomEvent<Events[K]>) => void, options?: boolean | AddEventListenerOptions,
  ): void
  addEventListener(
    type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions,
  ): void
  removeEventListener<K extends keyof Events>(
    type: K, listener: (event: CustomEvent<Events[K]>) => void, options?: boolean | EventListenerOptions,
  ): void
  removeEventListener(
    type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | EventListenerOptions,
  ): void
}

/** What a policy has decided: to wait, or to begin an attempt. */
export type Step =
  | { wait: number }
  | {
    wait?: undefined
    form: Form
    hold?: number
    heartbeat?: number
    /** The time for the first envelope. */
    envelopeWithin?: number
    /** The attempt ends after this time without a byte. */
    muteAfter: number
    /** The attempt is left after this time for a better form. */
    leaveAfter?: number
  }

export interface PolicyOptions {
  forms?: readonly Form[]
  settings?: Settings
  memory?: Memory
  /** The label of the network. */
  network?: string
  /** Whether WebSockets can be used. */
  webSocket?: boolean
  /** Returns a number from 0 to 1. */
  random?: () => number
  /** Takes the events `form`, `restart` and `not_gateway`. */
  emit?: (name: string, detail: any) => void
}

/** The decisions about delivery forms, without network and clock: what happened and when goes in, what to do comes out. */
export class Policy {
  constructor(options?: PolicyOptions)
  readonly form: Form
  hasNext(form: Form): boolean
  delay(now: number): number
  next(now: number): Step
  received(now: number): boolean
  envelope(now: number, envelope?: { upToDate?: boolean; empty?: boolean }): void
  ended(now: number, end: { kind: EndKind; status?: number; retryAfter?: number }): void
  networkChanged(now: number, label?: string): void
  memory(): Memory
}

/**
 * How an attempt, a poll or a connection, ended.
 *
 * - `answered`: a poll has its response. `clean`: a live form ended as it should. `stopped`: the client ended it.
 * - `no_envelope`, `mute`: a timeout, before the first envelope and behind it. `cut`: the connection broke.
 * - `not_upgraded`: a WebSocket did not open. `refused`: a response with an error status.
 * - `restart`: the gateway cannot be reached or asks for a pause. `not_gateway`: something else answered.
 */
export type EndKind =
  | "answered" | "clean" | "stopped" | "no_envelope" | "mute" | "cut" | "not_upgraded" | "refused" | "restart" | "not_gateway"

/** The search for the slowest heartbeat that keeps a WebSocket alive. */
export class HeartbeatSearch {
  constructor(limits: { min: number; max: number }, known?: { heartbeatLo?: number; heartbeatHi?: number })
  readonly bounds: { heartbeatLo?: number; heartbeatHi?: number }
  readonly heartbeat: number
  proved(heartbeat: number): void
  muted(heartbeat: number): boolean
  closed(heartbeat: number, silence: number): void
  excuse(): void
}
