// Types of pollgate.js. All times are seconds.

/** Forms of delivery. */
export type Form = "websocket" | "sse" | "ndjson" | "long-poll" | "short-poll"

/** All of them, the preferred one first. */
export const FORMS: readonly Form[]

/** Why the form has changed. */
export type Reason =
  | "start" | "not_supported" | "not_upgraded" | "refused" | "no_envelope" | "mute" | "cut" | "better" | "network_changed"

/** What can be set; see `SETTINGS` in pollgate.js for what each means. */
export interface Settings {
  envelopeTimeout: number
  envelopeTimeoutMax: number
  stableAfter: number
  reprobeAfter: number
  reprobeMax: number
  backoffMin: number
  backoffMax: number
  interval: number
  hold: number
  answerTimeout: number
  heartbeatMin: number
  heartbeatMax: number
  idleClock: number | null
  queueMax: number
}

/** The defaults. */
export const SETTINGS: Readonly<Settings>

/** What has been learned of networks, most recently used first; keep it and give it to the next client. */
export interface Memory {
  networks: {
    label: string
    form?: Form
    hold?: number
    holdProven?: number
    heartbeatLo?: number
    heartbeatHi?: number
  }[]
}

export interface ClientOptions {
  /** Forms that may be used, the preferred one first; all of them if left out. */
  forms?: Form[]
  settings?: Partial<Settings>
  memory?: Memory
  /** The label of the network, such as the name of a Wi-Fi; empty if left out. */
  network?: string
  /**
   * Whether the tabs of this origin share one connection. On where there are Web Locks and BroadcastChannel (pages over
   * HTTPS or of this machine), else off. A text makes a group of its own: tabs of one group must have the same options.
   */
  share?: boolean | string
  /** Instead of the global ones. Node 20 has no `WebSocket`: without one that form is skipped. */
  fetch?: typeof fetch
  WebSocket?: typeof WebSocket
}

/** A message. */
export interface Message<T = unknown> {
  stream: string
  /** A value of a JSON stream, a text of a `text/*` stream, bytes otherwise. */
  data: T
  contentType: string
}

/** If it throws or rejects, the subscription ends with that error, and its resume token stays. */
export type Handler<T = unknown> = (message: Message<T>) => unknown

export interface SubscribeOptions {
  /** Where to go on: what `Subscription.resumeToken` was. Streams that it does not know begin now, or as `from` says. */
  resumeToken?: string
  from?: "earliest"
}

export interface Subscription<T = unknown> extends AsyncIterable<Message<T>> {
  readonly streams: string[]
  /** Behind the last envelope whose messages have all been handled. Empty until the gateway has answered. */
  readonly resumeToken: string
  /** Resolves when it was closed, rejects with what ended it. */
  readonly closed: Promise<void>
  /** Ends it: no message is handed out any more. */
  close(): void
}

export interface PublishOptions {
  /** `application/json` if left out. */
  contentType?: string
  /** Whether to create the stream if it does not exist. */
  create?: boolean
}

/** What a client's events carry as `detail`. */
export interface Events {
  /** Another form is used. `from` is null at the start. */
  form: { from: Form | null; to: Form; reason: Reason }
  /** Messages are no longer kept; `gap` is what the gateway says, such as `reason=trimmed; missed=3`. */
  gap: { subscription: Subscription; stream: string; gap: string }
  /** The stream does not exist; it is waited for. */
  missing: { subscription: Subscription; stream: string }
  /** Nothing will follow on the stream. */
  closed: { subscription: Subscription; stream: string }
  /** The gateway is not to be reached, or asks for a pause; next try in `wait`. */
  restart: { wait: number }
  /** Something else answers, such as a captive portal; next try in `wait`. */
  not_gateway: { wait: number }
  /** A subscription has ended with an error. */
  error: { subscription: Subscription; error: Error }
}

/** The gateway refused something for good. */
export class GatewayError extends Error {
  readonly status: number
  /** Its problem document (RFC 9457). */
  readonly problem: { type?: string; title?: string; status?: number; detail?: string } | null
}

/** A gateway, as a client sees it. Nothing is sent before the first subscription or publication. */
export class Client extends EventTarget {
  constructor(url: string | URL, options?: ClientOptions)
  /** Reads streams from `resumeToken` on. Without a handler: `for await (const message of subscription)`. */
  subscribe<T = unknown>(streams: string | string[], handler?: Handler<T>): Subscription<T>
  subscribe<T = unknown>(streams: string | string[], options: SubscribeOptions, handler?: Handler<T>): Subscription<T>
  /**
   * Appends a message and resolves with the offset behind it. It is tried until the gateway has it or refuses it for
   * good, and is in the stream once, however often it was sent.
   */
  publish(stream: string, data: unknown, options?: PublishOptions): Promise<string>
  /** The network is another one, or the same one again without a label. */
  networkChanged(label?: string): void
  memory(): Memory
  close(): void
  addEventListener<K extends keyof Events>(
    type: K, listener: (event: CustomEvent<Events[K]>) => void, options?: boolean | AddEventListenerOptions,
  ): void
  removeEventListener<K extends keyof Events>(type: K, listener: (event: CustomEvent<Events[K]>) => void): void
}

/** What a policy has decided. */
export type Step =
  | { wait: number }
  | { wait?: undefined; form: Form; hold?: number; heartbeat?: number; envelopeWithin?: number; muteAfter: number; leaveAfter?: number }

/** The decisions alone, without network and clock: what happened and when goes in, what to do comes out. */
export class Policy {
  constructor(options?: {
    forms?: Form[]; settings?: Settings; memory?: Memory; network?: string; webSocket?: boolean
    random?: () => number; emit?: (name: string, detail: unknown) => void
  })
  readonly form: Form
  next(now: number): Step
  received(now: number): boolean
  envelope(now: number, envelope?: { upToDate?: boolean; empty?: boolean }): void
  ended(now: number, outcome: { kind: string; status?: number; retryAfter?: number }): void
  networkChanged(now: number, label?: string): void
  memory(): Memory
}

/** The search for the slowest heartbeat that a network lets live. */
export class HeartbeatSearch {
  constructor(limits: { min: number; max: number }, known?: { heartbeatLo?: number; heartbeatHi?: number })
  readonly bounds: { heartbeatLo?: number; heartbeatHi?: number }
  readonly heartbeat: number
  proved(heartbeat: number): void
  muted(heartbeat: number): boolean
  closed(heartbeat: number, silence: number): void
  excuse(): void
}
