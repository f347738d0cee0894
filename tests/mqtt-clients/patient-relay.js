// A relay to the gateway for clients that lose a message when they cannot send the answer to it.
//
// mosquitto_sub forgets a message of quality 2, without printing it, if the connection is gone when it sends the PUBCOMP
// (lib/handle_pubrel.c, 2.0.11). So after the gateway's end this relay takes the client's answers to each PUBREL
// that it has passed on, and only then ends the connection.
import { once } from "node:events"
import { connect, createServer } from "node:net"
import { parser as packets } from "mqtt-packet"

export class PatientRelay {
  #server
  #sockets = new Set()

  // Starts a relay to `address` for clients of this protocol version (4 or 5).
  static async to(context, address, protocolVersion) {
    const relay = new PatientRelay()
    const [host, port] = address.split(":")
    relay.#server = createServer((client) => relay.#join(client, connect(Number(port), host), protocolVersion))
    relay.#server.listen(0, "127.0.0.1")
    await once(relay.#server, "listening")
    relay.address = `127.0.0.1:${relay.#server.address().port}`
    context.after(() => {
      relay.#server.close()
      for (const socket of relay.#sockets) socket.destroy()
    })
    return relay
  }

  #join(client, gateway, protocolVersion) {
    for (const socket of [client, gateway]) {
      this.#sockets.add(socket)
      socket.on("error", () => {})
      socket.on("close", () => this.#sockets.delete(socket))
    }
    const unanswered = new Set()
    let isGone = false
    const endIfAnswered = () => {
      if (isGone && unanswered.size === 0) client.destroy()
    }
    const [fromClient, fromGateway] = [packets({ protocolVersion }), packets({ protocolVersion })]
    fromGateway.on("packet", ({ cmd, messageId }) => cmd === "pubrel" && unanswered.add(messageId))
    fromClient.on("packet", ({ cmd, messageId }) => {
      if (cmd === "pubcomp") unanswered.delete(messageId)
      endIfAnswered()
    })
    gateway.on("data", (chunk) => {
      fromGateway.parse(chunk)
      client.write(chunk)
    })
    client.on("data", (chunk) => {
      fromClient.parse(chunk)
      if (!isGone) gateway.write(chunk)
    })
    gateway.on("close", () => {
      isGone = true
      endIfAnswered()
    })
    client.on("close", () => gateway.destroy())
  }
}
