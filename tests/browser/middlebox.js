// A hostile network in front of a gateway: a process of the comparison tool. LOADTEST_BINARY names the command.
import { spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync } from "node:fs"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"

const fromHere = (path) => fileURLToPath(new URL(path, import.meta.url))
const BUILDS = ["../../target/release/loadtest", "../../target/debug/loadtest"].map(fromHere)
const binary = process.env.LOADTEST_BINARY ?? BUILDS.find(existsSync)
if (!binary) throw new Error(`LOADTEST_BINARY is not set, and there is none of ${BUILDS.join(", ")}`)

// Starts that network, `NAME` or `NAME:TIME`, before a server. Returns its URL, and `end`, which ends it and returns how
// many faults there were; a test that ends earlier ends it too.
export async function middlebox(context, network, upstream) {
  const child = spawn(binary, ["middlebox", "--network", network, "--upstream", upstream, "--listen", "127.0.0.1:0"], {
    stdio: ["ignore", "pipe", "pipe"],
  })
  const exited = once(child, "close")
  context.after(() => {
    child.kill("SIGKILL")
    return exited
  })
  let complaint = ""
  child.stderr.on("data", (text) => (complaint += text))
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const next = async (pattern) => {
    const { value = "" } = await lines.next()
    const [, found] = pattern.exec(value) ?? []
    if (found !== undefined) return found
    child.kill("SIGTERM")
    await exited
    throw new Error(`${binary}, network ${network}, did not say ${pattern} but: ${value}${complaint}`)
  }
  const end = async () => {
    child.kill("SIGTERM")
    return Number(await next(/, faults (\d+)$/))
  }
  return { url: `http://${await next(/^listening (.+)$/)}`, end }
}
