// A Prosody that accepts the gateway as its component, on loopback addresses.
import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises"
import { connect, createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"

export const [HOST, SERVICE, SECRET] = ["localhost", "streams.localhost", "a secret"]
const PASSWORD = "password"

// Users that exist.
const USERS = ["alice", "bob", "eve"]

// Ports below those that the kernel gives to clients' connections, see tests/conformance/gateway.js.
let nextPort = 10_050 + (process.pid % 220) * 100

async function freePort() {
  for (;;) {
    const server = createServer().listen(++nextPort, "127.0.0.1")
    const isFree = await once(server, "listening").then(() => true, () => false)
    await new Promise((closed) => server.close(closed))
    if (isFree) return nextPort
  }
}

const lua = (settings) => Object.entries(settings).map(([name, value]) => `${name} = ${value}\n`).join("")

export class Prosody {
  #child
  #exited

  // A server that ends with its test.
  // It keeps messages for users who are away, or returns them.
  static async start(context, keepsMessages = true) {
    const prosody = new Prosody()
    prosody.keepsMessages = keepsMessages
    prosody.folder = await mkdtemp(join(tmpdir(), "pollgate-prosody-"))
    prosody.clients = await freePort()
    prosody.components = await freePort()
    await prosody.#configure()
    await prosody.run()
    context.after(async () => {
      await prosody.kill()
      await rm(prosody.folder, { recursive: true })
    })
    return prosody
  }

  async #configure() {
    const secret = join(this.folder, "secret")
    await writeFile(secret, `${SECRET}\n`)
    this.secretFile = secret
    const loopback = '{ "127.0.0.1" }'
    await writeFile(
      join(this.folder, "prosody.cfg.lua"),
      lua({
        daemonize: false,
        // Otherwise it sometimes does not listen for clients if the test runs as root.
        run_as_root: true,
        pidfile: `"${this.folder}/prosody.pid"`,
        data_path: `"${this.folder}/data"`,
        log: `{ { levels = { min = "error" }, to = "console" } }`,
        modules_disabled: this.keepsMessages ? '{ "s2s", "tls" }' : '{ "s2s", "tls", "offline" }',
        modules_enabled: '{ "disco", "ping", "roster", "saslauth" }',
        authentication: '"internal_plain"',
        allow_unencrypted_plain_auth: true,
        c2s_require_encryption: false,
        interfaces: loopback,
        c2s_interfaces: loopback,
        component_interfaces: loopback,
        c2s_ports: `{ ${this.clients} }`,
        c2s_direct_tls_ports: "{}",
        s2s_ports: "{}",
        http_ports: "{}",
        https_ports: "{}",
        component_ports: `{ ${this.components} }`,
      }) + `VirtualHost "${HOST}"\nComponent "${SERVICE}"\n  component_secret = "${SECRET}"\n`,
    )
    // Accounts in the form in which Prosody stores them.
    const accounts = join(this.folder, "data", HOST, "accounts")
    await mkdir(accounts, { recursive: true })
    for (const user of USERS) await writeFile(join(accounts, `${user}.dat`), `return { ["password"] = "${PASSWORD}" };\n`)
  }

  // Starts it, and returns once it accepts clients and components.
  async run() {
    const options = { stdio: ["ignore", "ignore", "inherit"] }
    this.#child = spawn("prosody", ["--config", join(this.folder, "prosody.cfg.lua")], options)
    this.#exited = once(this.#child, "exit")
    let isOver = false
    void this.#exited.then(() => (isOver = true))
    for (const port of [this.clients, this.components]) {
      for (;;) {
        assert(!isOver, "prosody has ended")
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
  login(user) {
    return ["127.0.0.1", String(this.clients), user.replace(/^[^/]*/, `$&@${HOST}`), PASSWORD, SERVICE]
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
