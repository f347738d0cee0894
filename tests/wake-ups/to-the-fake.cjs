// Brings an official SDK of Google to the fake: connections to its hosts go to the port in FAKE_PORT of this machine.
const tls = require("node:tls")
const connect = tls.connect
tls.connect = function (...values) {
  const options = values.find((value) => value && typeof value === "object") ?? {}
  const host = options.servername || options.host || ""
  if (!/google/.test(host)) return connect.apply(this, values)
  const { path, ...rest } = options
  const listener = values.find((value) => typeof value === "function")
  return connect.call(this, { ...rest, host: "127.0.0.1", port: Number(process.env.FAKE_PORT), servername: host }, listener)
}
