// A Socket.IO server as its documentation starts one: each reader joins the room of its stream, and a message arrives by a request, as
// from an application's backend. Arguments: port, milliseconds between two pings.
import { createServer } from "node:http"
import { Server } from "socket.io"

const [port, pingInterval] = process.argv.slice(2).map(Number)

const http = createServer((request, response) => {
  const room = request.url.replace("/publish/", "")
  let message = ""
  request.setEncoding("utf8")
  request.on("data", (part) => (message += part))
  request.on("end", () => {
    io.to(room).emit("message", JSON.parse(message))
    response.writeHead(204).end()
  })
})

const io = new Server(http, { pingInterval, serveClient: false })
io.on("connection", (socket) => socket.join(socket.handshake.query.stream))
http.listen(port, "127.0.0.1")
