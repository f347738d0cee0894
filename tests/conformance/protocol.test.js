// The protocol's conformance tests, without subscriptions.
import { runConformanceTests } from "@durable-streams/server-conformance-tests"
import { afterAll } from "vitest"
import { start } from "./gateway.js"

const gateway = await start()
afterAll(gateway.stop)

runConformanceTests({ baseUrl: gateway.url, longPollTimeoutMs: 2000 })
