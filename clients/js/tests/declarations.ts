// The implementation has all that pollgate.d.ts declares, with types that fit. `npm run check` checks this file; it never runs.

import type * as declared from "../pollgate.js"
import * as implemented from "../src/pollgate.js"

export const entry: Omit<typeof declared, "Client"> = implemented

// The listeners of `Client` are those of `EventTarget`, which takes any; the declarations name its events.
type Listeners = "addEventListener" | "removeEventListener"
type ClientClass = new (...args: ConstructorParameters<typeof declared.Client>) => Omit<declared.Client, Listeners>
export const Client: ClientClass = implemented.Client

// Every export is declared.
export const names: Record<keyof typeof implemented, keyof typeof declared> = {
  Client: "Client",
  FORMS: "FORMS",
  GatewayError: "GatewayError",
  HeartbeatSearch: "HeartbeatSearch",
  Policy: "Policy",
  QueueFullError: "QueueFullError",
  SETTINGS: "SETTINGS",
}
