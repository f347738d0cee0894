// The protocol's conformance tests again, on the store on disk.
import { runConformanceTests } from "@durable-streams/server-conformance-tests"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll } from "vitest"
import { start } from "./gateway.js"

const folder = await mkdtemp(join(tmpdir(), "pollgate-"))
const gateway = await start(undefined, ["--store", folder, "--origin", "https://example.com", "--outbound-allow", "127.0.0.1"])
afterAll(async () => {
  await gateway.stop()
  await rm(folder, { recursive: true })
})

runConformanceTests({ baseUrl: gateway.url, longPollTimeoutMs: 2000, subscriptions: true })
