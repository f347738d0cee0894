// The panel “Close this tab and be woken”: registers the browser as a device that the gateway wakes by Web Push. While the tab is
// open it reads by long poll, so that the device is connected and not woken. Behind it, the service worker reads (wake.js).
import { Client } from "./pollgate.js"

/** How long the gateway may wake this browser, as long as the stream of the page is kept without readers. */
const REGISTERED_SECONDS = 3600

const DEVICE = "pollgate device"

/**
 * Shows the panel if the operator has set up Web Push.
 * @param {HTMLElement} section
 * @param {string} stream What the browser is woken for.
 */
export async function offerWakes(section, stream) {
  const apps = await new Client(location.href, { share: false, storage: null }).wakeApps()
  const app = apps.find(({ credential }) => credential === "web-push")
  if (!app) return
  section.hidden = false
  new Sleep(section, stream, app)
}

class Sleep {
  #stream
  #app
  #state
  #start
  #stop
  #client
  #device = deviceOfBrowser()

  constructor(section, stream, app) {
    this.#stream = stream
    this.#app = app
    this.#state = section.querySelector("[role=status]")
    this.#start = section.querySelector(".start")
    this.#stop = section.querySelector(".stop")
    const command = `curl -H 'Content-Type: application/json' -d '{"text":"wake up"}' '${new URL(`v1/stream/${stream}`, location.href)}'`
    section.querySelector("code").textContent = command
    const obstacle = obstacleOf()
    this.#start.hidden = obstacle !== undefined
    this.#say(obstacle ?? "Not registered.")
    this.#start.addEventListener("click", () => this.#change(() => this.#register()))
    this.#stop.addEventListener("click", () => this.#change(() => this.#unregister()))
  }

  async #register() {
    if ((await Notification.requestPermission()) !== "granted") throw new Error(REFUSED)
    const script = new URL("wake.js", location.href)
    script.search = new URLSearchParams({ device: this.#device, stream: this.#stream })
    await navigator.serviceWorker.register(script)
    const { pushManager } = await navigator.serviceWorker.ready
    // A subscription with another key of the gateway would be refused.
    await (await pushManager.getSubscription())?.unsubscribe()
    const options = { userVisibleOnly: true, applicationServerKey: this.#app.publicKey }
    const pushSubscription = await pushManager.subscribe(options).catch((error) => {
      throw new Error(error.name === "NotAllowedError" ? REFUSED : `The browser does not reach its push service: ${error.message}`)
    })
    this.#client = new Client(location.href, { share: false, storage: null, forms: ["long-poll"] })
    this.#client.subscribe(this.#stream, () => {})
    await this.#client.registerDevice({
      id: this.#device, streams: { [this.#stream]: "now" }, pushSubscription, app: this.#app.app, expiresIn: REGISTERED_SECONDS,
    })
    this.#show(true)
    this.#say("Registered for an hour. Close this tab, publish from elsewhere, and see a notification.")
  }

  async #unregister() {
    await this.#client.unregisterDevice(this.#device)
    this.#client.close()
    const registration = await navigator.serviceWorker.ready
    await (await registration.pushManager.getSubscription())?.unsubscribe()
    await registration.unregister()
    this.#show(false)
    this.#say("Not registered any more.")
  }

  /** Does what a button asks for, once at a time, and tells why it fails. */
  async #change(work) {
    if (this.#start.disabled) return
    this.#start.disabled = this.#stop.disabled = true
    await work().catch((error) => this.#say(error.message))
    this.#start.disabled = this.#stop.disabled = false
  }

  #show(registered) {
    this.#start.hidden = registered
    this.#stop.hidden = !registered
  }

  #say(text) {
    this.#state.textContent = text
  }
}

const REFUSED = "This browser refuses notifications of this page, and without them there is no Web Push. Allow them in the settings of the site, and try again."

/** Why this browser cannot be woken. */
function obstacleOf() {
  if (!isSecureContext) return "Browsers allow Web Push over HTTPS and on localhost only, and this page is neither."
  if (!navigator.serviceWorker || !globalThis.PushManager) return "This browser has no Web Push, or not in private windows."
  return globalThis.Notification?.permission === "denied" ? REFUSED : undefined
}

/** The id of this browser, which stays, so that a later visit replaces the registration. */
function deviceOfBrowser() {
  const id = localStorage.getItem(DEVICE) ?? `page-${crypto.getRandomValues(new Uint32Array(4)).join("-")}`
  localStorage.setItem(DEVICE, id)
  return id
}
