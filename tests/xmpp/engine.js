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

// Two gateways on one Redis, that know of each other's changes.
export async function gatewaysOf(context, further = []) {
  const engine = await engineOf(context)
  const gateways = []
  for (const name of ["one", "other"]) {
    const gateway = await gatewayOf(context, [...engine(name), ...further])
    gateway.again = (address) => gatewayOf(context, [...engine(name), ...further], address)
    gateways.push(gateway)
  }
  for (const gateway of gateways) {
    const isBlind = async () => !/^pollgate_engine_news_blind_partitions 0$/m.test(await (await fetch(`${gateway.admin}/metrics`)).text())
    while (await isBlind()) await sleep(20)
  }
  return gateways
}
