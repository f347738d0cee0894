// A gateway process on ports of its own. GATEWAY_BINARY names the command.
import { spawn } from "node:child_process"
import { once } from "node:events"
import { createServer } from "node:net"
import { createInterface } from "node:readline"
import { settings } from "./credentials.js"

const binary = process.env.GATEWAY_BINARY
if (!binary) throw new Error("GATEWAY_BINARY is not set")

// The next port to try. It is below those that the kernel gives to clients' connections (from 32768 on), one of which could take
// the port of a gateway that was killed before it starts again. Processes that test at the same time begin at different ports.
const [FIRST_PORT, LAST_PORT] = [10_000, 32_000]
let nextPort = FIRST_PORT + (process.pid % 220) * 100

// An address at a free port, if none is asked for.
async function own(address) {
  while (address === "127.0.0.1:0") {
    const port = nextPort
    nextPort = port < LAST_PORT ? port + 1 : FIRST_PORT
    const server = createServer().listen(port, "127.0.0.1")
    const isFree = await once(server, "listening").then(() => true, () => false)
    await new Promise((closed) => server.close(closed))
    if (isFree) return `127.0.0.1:${port}`
  }
  return address
}

// Starts it with further arguments and returns its addresses, its URL, `stop`, which kills it as a crash would, and
// `drain`, which asks it to end and returns its exit code.
export async function start(listen = "127.0.0.1:0", further = [], mqtt = "off") {
  const addresses = ["--listen", await own(listen), "--admin", "127.0.0.1:0", "--mqtt", await own(mqtt)]
  const store = further.includes("--store") ? [] : ["--store", "memory"]
  const hold = further.includes("--hold") ? [] : ["--hold", "2s"]
  const credentials = further.includes("--auth") ? [] : settings
  const child = spawn(binary, [...addresses, ...store, ...hold, ...credentials, ...further], { stdio: ["ignore", "pipe", "inherit"] })
  const exited = once(child, "exit")
  const end = async (signal) => {
    child.kill(signal)
    const [code] = await exited
    return code
  }
  const said = {}
  for await (const line of createInterface({ input: child.stdout })) {
    // An empty line ends the list.
    if (!line) {
      const address = new URL(said.listening).host
      const ends = { stop: () => end("SIGKILL"), drain: () => end("SIGTERM") }
      return { url: said.listening, address, admin: said.admin, mqtt: said.mqtt, ...ends }
    }
    const [what, where] = line.split(" ")
    said[what] = where
  }
  throw new Error("the gateway did not say where it listens")
}
