import { mkdir, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { HOST, OWN_SERVICE, PASSWORD, SECRET, SERVICE, Server, USERS } from "./server.js"

const lua = (settings) => Object.entries(settings).map(([name, value]) => `${name} = ${value}\n`).join("")

export class Prosody extends Server {
  async configure() {
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
        modules_enabled: '{ "disco", "mam", "ping", "roster", "saslauth" }',
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
      }) +
        `VirtualHost "${HOST}"\n` +
        `Component "${SERVICE}"\n  component_secret = "${SECRET}"\n` +
        `Component "${OWN_SERVICE}" "pubsub"\n  admins = { "${USERS[0]}@${HOST}" }\n`,
    )
    // Accounts in the form in which Prosody stores them.
    const accounts = join(this.folder, "data", HOST, "accounts")
    await mkdir(accounts, { recursive: true })
    for (const user of USERS) await writeFile(join(accounts, `${user}.dat`), `return { ["password"] = "${PASSWORD}" };\n`)
  }

  get command() {
    return ["prosody", "--config", join(this.folder, "prosody.cfg.lua")]
  }
}
