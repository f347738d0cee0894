// The service worker of the page. A push wakes it while no tab is open: it reads what is behind the offset of the device, and shows
// it. The address of this script has the device and its stream.
const base = new URL("./", location.href)
const { device, stream } = Object.fromEntries(new URL(location.href).searchParams)

self.addEventListener("install", () => self.skipWaiting())
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()))
self.addEventListener("push", (event) => event.waitUntil(wake()))
self.addEventListener("notificationclick", (event) => {
  event.notification.close()
  event.waitUntil(self.clients.openWindow(base))
})

/** Browsers want each push to end in a notification, also if nothing can be read. */
async function wake() {
  const body = await news().catch((error) => `Something is new, but it cannot be read: ${error.message}`)
  await self.registration.showNotification("pollgate woke this browser", { body, tag: device })
}

/** Reads until nothing is new: only the offset of a further poll tells the gateway that the messages have arrived. */
async function news() {
  const known = await (await ask(`v1/devices/${device}`)).json()
  const messages = []
  for (let offset = known.streams[stream]; ; ) {
    const response = await ask(`v1/stream/${stream}?client=${device}&offset=${offset}`)
    const read = await response.json()
    if (!read.length) break
    messages.push(...read)
    offset = response.headers.get("stream-next-offset")
  }
  const last = messages.at(-1)
  if (!last) return "Nothing is new: another reader of this device was faster."
  return `${messages.length === 1 ? "One message" : `${messages.length} messages`}, the last one: ${last.text ?? JSON.stringify(last)}`
}

async function ask(path) {
  const response = await fetch(new URL(path, base), { cache: "no-store" })
  if (!response.ok) throw new Error(`the gateway answered ${response.status}`)
  return response
}
