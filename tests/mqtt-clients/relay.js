// A way to the gateway that can break.
import { once } from "node:events"
import { connect, createServer } from "node:net"

export class Relay {
  #server
  #sockets = new Set()

  static async to(address) {
    const relay = new Relay()
    const [host, port] = address.split(":")
    relay.#server = createServer((client) => {
      const gateway = connect(Number(port), host)
      relay.#join(client, gateway)
      relay.#join(gateway, client)
    })
    relay.#server.listen(0, "127.0.0.1")
    await once(relay.#server, "listening")
    relay.address = `127.0.0.1:${relay.#server.address().port}`
    return relay
  }

  // Breaks what is open. Who comes after that gets through.
  cut() {
    for (const socket of this.#sockets) socket.destroy()
  }

  async close() {
    this.cut()
    this.#server.close()
    await once(this.#server, "close")
  }

  #join(from, to) {
    this.#sockets.add(from)
    from.pipe(to)
    // Whoever breaks takes the other one along.
    from.on("error", () => to.destroy())
    from.on("close", () => {
      this.#sockets.delete(from)
      to.destroy()
    })
  }
}
