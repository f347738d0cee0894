// Several gateways on one Redis.
import { spawn } from "node:child_process"
import { once } from "node:events"
import { connect } from "node:net"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { folderOf, gatewayOf } from "./online.js"

// Starts a Redis that ends with the test. Returns the arguments of a gateway with this name on it.
export async function engineOf(context) {
  const folder = await folderOf(context)
  const socket = join(folder, "socket")
  const words = ["--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no", "--dir", folder]
  const server = spawn("redis-server", words, { stdio: ["ignore", "ignore", "inherit"] })
  const exited = once(server, "exit")
  context.after(async () => {
    server.kill("SIGKILL")
    await exited
  })
  for (;;) {
    const connection = connect(socket)
    const isOpen = await once(connection, "connect").then(() => true, () => false)
    connection.destroy()
    if (isOpen) break
    await sleep(20)
  }
  return (name) => ["--store", `redis+unix://${socket}`, "--gateway-name", name]
}

// Two gateways on one Redis, that know of each other's changes. `again` starts one that was killed.
export async function gatewaysOf(context, further = []) {
  const engine = await engineOf(context)
  const startOf = async (name, address) => {
    const gateway = await gatewayOf(context, [...engine(name), ...further], address)
    gateway.again = () => startOf(name, gateway.address)
    while ((await gateway.metric("engine_news_blind_partitions")) > 0) await sleep(20)
    return gateway
  }
  return [await startOf("one"), await startOf("other")]
}
