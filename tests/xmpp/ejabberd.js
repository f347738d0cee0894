import { access, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { HOST, OWN_SERVICE, PASSWORD, SECRET, SERVICE, Server, USERS } from "./server.js"

// Where Debian has the libraries of ejabberd.
const LIBRARIES = "/usr/lib/x86_64-linux-gnu:/usr/lib/aarch64-linux-gnu"

export class Ejabberd extends Server {
  async configure() {
    const listener = (port, module, further) => ({ port, ip: "127.0.0.1", module, ...further })
    const settings = {
      hosts: [HOST],
      loglevel: "error",
      auth_method: "internal",
      listen: [
        listener(this.clients, "ejabberd_c2s", { starttls: false }),
        listener(this.components, "ejabberd_service", { hosts: { [SERVICE]: { password: SECRET } } }),
      ],
      acl: { owners: { user: USERS[0] } },
      access_rules: { owners: { allow: "owners" } },
      modules: {
        mod_disco: {},
        mod_mam: { default: "always" },
        mod_ping: {},
        mod_roster: {},
        mod_pubsub: { host: OWN_SERVICE, access_createnode: "owners", plugins: ["flat"] },
        ...(this.keepsMessages ? { mod_offline: {} } : {}),
      },
    }
    // JSON is YAML.
    await writeFile(join(this.folder, "ejabberd.yml"), JSON.stringify(settings))
  }

  // A node of Erlang without a name, which neither starts nor asks a name server.
  get command() {
    const users = USERS.map((user) => `<<"${user}">>`).join(", ")
    return [
      "erl", "-noinput",
      // Idle schedulers do not spin.
      "+sbwt", "none",
      "-mnesia", "dir", `"${this.folder}/data"`,
      "-eval", "{ok, _} = application:ensure_all_started(ejabberd)",
      "-eval", `[ejabberd_auth:try_register(User, <<"${HOST}">>, <<"${PASSWORD}">>) || User <- [${users}]]`,
      "-eval", `file:write_file("${this.#ready}", "")`,
    ]
  }

  get #ready() {
    return join(this.folder, "ready")
  }

  // It listens before its users exist.
  async run() {
    await rm(this.#ready, { force: true })
    await super.run()
    while (!(await access(this.#ready).then(() => true, () => false))) await sleep(20)
  }

  get environment() {
    return {
      ERL_LIBS: LIBRARIES,
      HOME: this.folder,
      EJABBERD_CONFIG_PATH: join(this.folder, "ejabberd.yml"),
      EJABBERD_LOG_PATH: join(this.folder, "ejabberd.log"),
    }
  }
}
