// A gateway process on ports of its own. GATEWAY_BINARY names the command.
import { spawn } from "node:child_process"
import { once } from "node:events"
import { createInterface } from "node:readline"
import { settings } from "./credentials.js"
import { reservedPort } from "./ports.js"

const binary = process.env.GATEWAY_BINARY
if (!binary) throw new Error("GATEWAY_BINARY is not set")

// An address of its own, if none is asked for: a gateway that was killed gets it again.
const own = async (address) => (address === "127.0.0.1:0" ? `127.0.0.1:${await reservedPort()}` : address)

// Starts it with further arguments and returns its process id, its addresses, its URL, `stop`, which kills it as a crash would, and
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
      const ends = { pid: child.pid, stop: () => end("SIGKILL"), drain: () => end("SIGTERM") }
      return { url: said.listening, address, admin: said.admin, mqtt: said.mqtt, ...ends }
    }
    const [what, where] = line.split(" ")
    said[what] = where
  }
  throw new Error("the gateway did not say where it listens")
}
