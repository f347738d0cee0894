// The service worker of the page. A push wakes it, also while no page is open. The push says nothing but that something is new: the
// worker reads from the gateway, from the offset that the gateway knows of this device.
const { gateway, stream, device } = Object.fromEntries(new URL(location.href).searchParams)

self.addEventListener("install", () => self.skipWaiting())
self.addEventListener("push", (event) => event.waitUntil(wake()))

// Browsers want each push to end in a notification, also if nothing can be read.
async function wake() {
  const body = await news().catch((error) => `Something is new, but it cannot be read: ${error.message}`)
  await self.registration.showNotification(`News in ${stream}`, { body, tag: device })
}

// Reads until nothing is new: only a poll from behind the messages tells the gateway that they have arrived.
async function news() {
  const messages = []
  let offset = (await (await ask(`/v1/devices/${device}`)).json()).streams[stream]
  for (;;) {
    const response = await ask(`/v1/stream/${stream}?client=${device}&offset=${offset}`)
    const read = await response.json()
    if (read.length === 0) return messages.map((message) => JSON.stringify(message)).join(", ")
    messages.push(...read)
    offset = response.headers.get("stream-next-offset")
  }
}

async function ask(path) {
  const response = await fetch(gateway + path, { cache: "no-store" })
  if (!response.ok) throw new Error(`the gateway answered ${response.status}`)
  return response
}
