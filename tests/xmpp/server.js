// An XMPP server that accepts the gateway as its component, on loopback addresses.
import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { reservedPort } from "../conformance/ports.js"

export const [HOST, SERVICE, SECRET] = ["localhost", "streams.localhost", "a secret"]
// The publish-subscribe service of the server itself.
export const OWN_SERVICE = "pubsub.localhost"
export const PASSWORD = "password"

// Users that exist.
export const USERS = ["alice", "bob", "eve"]

// What a server has of its own is `configure`, which writes what it needs into its folder, and `command`, which starts it.
export class Server {
  #child
  #exited

  // A server that ends with its test.
  // It keeps messages for users who are away, or returns them.
  static async start(context, keepsMessages = true) {
    const server = new this()
    server.keepsMessages = keepsMessages
    server.folder = await mkdtemp(join(tmpdir(), "pollgate-xmpp-"))
    server.clients = await reservedPort()
    server.components = await reservedPort()
    server.secretFile = join(server.folder, "secret")
    await writeFile(server.secretFile, `${SECRET}\n`)
    await server.configure()
    await server.run()
    context.after(async () => {
      await server.kill()
      await rm(server.folder, { recursive: true })
    })
    return server
  }

  // Starts it, and returns once it accepts clients and components.
  async run() {
    const [command, ...further] = this.command
    const options = { stdio: ["ignore", "ignore", "inherit"], env: { ...process.env, ...this.environment } }
    this.#child = spawn(command, further, options)
    this.#exited = once(this.#child, "exit")
    let isOver = false
    void this.#exited.then(() => (isOver = true))
    for (const port of [this.clients, this.components]) {
      for (;;) {
        assert(!isOver, `${command} has ended`)
        const socket = connect(port, "127.0.0.1")
        const isOpen = await once(socket, "connect").then(() => true, () => false)
        socket.destroy()
        if (isOpen) break
        await sleep(20)
      }
    }
  }

  // Kills it as a crash would.
  async kill() {
    this.#child.kill("SIGKILL")
    await this.#exited
  }

  // Lets it stand still, and lets it go on.
  stop() {
    this.#child.kill("SIGSTOP")
  }
  goOn() {
    this.#child.kill("SIGCONT")
  }

  // What slixmpp needs to log in. A user may name a resource.
  login(user, service = SERVICE) {
    return ["127.0.0.1", String(this.clients), user.replace(/^[^/]*/, `$&@${HOST}`), PASSWORD, service]
  }

  // Options of a gateway that is its component.
  get options() {
    return [
      "--xmpp-component", `127.0.0.1:${this.components}`,
      "--xmpp-component-name", SERVICE,
      "--xmpp-component-secret-file", this.secretFile,
    ]
  }
}
