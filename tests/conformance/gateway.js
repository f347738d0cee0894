// A gateway process on ports of its own. GATEWAY_BINARY names the command.
import { spawn } from "node:child_process"
import { once } from "node:events"
import { createInterface } from "node:readline"

const binary = process.env.GATEWAY_BINARY
if (!binary) throw new Error("GATEWAY_BINARY is not set")

// Starts it with further arguments and returns its address, its URL and `stop`, which kills it as a crash would.
export async function start(listen = "127.0.0.1:0", further = []) {
  const child = spawn(binary, ["--listen", listen, "--admin", "127.0.0.1:0", "--hold", "2s", ...further], {
    stdio: ["ignore", "pipe", "inherit"],
  })
  const exited = once(child, "exit")
  const stop = async () => {
    child.kill("SIGKILL")
    await exited
  }
  for await (const line of createInterface({ input: child.stdout })) {
    const found = line.match(/^listening (http:\/\/(.*))$/)
    if (found) return { url: found[1], address: found[2], stop }
  }
  throw new Error("the gateway did not say where it listens")
}
