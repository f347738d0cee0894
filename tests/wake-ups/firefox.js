// Firefox with a push service of the test's own, on pages over plain HTTP of this machine.
import puppeteer from "puppeteer-core"
import { until } from "./world.js"

const preferences = (socketUrl) => ({
  "dom.push.serverURL": socketUrl, "dom.push.testing.allowInsecureServerURL": true, "dom.push.connection.enabled": true,
  "dom.push.enabled": true, "dom.push.testing.ignorePermission": true, "dom.serviceWorkers.enabled": true,
  "dom.serviceWorkers.testing.enabled": true, "network.proxy.type": 0,
  // Notifications of its own, as there may be no desktop that shows them.
  "alerts.useSystemBackend": false,
})

// Whether pages may show notifications, without asking the user.
export const PERMISSION = { allowed: 1, refused: 2 }

// Starts it; it ends with the test.
export async function firefox(context, service, permission = PERMISSION.allowed) {
  const browser = await puppeteer.launch({
    browser: "firefox", executablePath: "/usr/bin/firefox-esr", headless: true,
    extraPrefsFirefox: { ...preferences(service.socketUrl), "permissions.default.desktop-notification": permission },
  })
  context.after(() => browser.close())
  return browser
}

// The notifications of the page at a URL, seen from another tab.
export async function notifications(tab, url) {
  await tab.goto(url)
  const found = () => tab.evaluate(async () => {
    const registration = await navigator.serviceWorker.getRegistration("/")
    return (await registration.getNotifications()).map(({ title, body }) => ({ title, body }))
  })
  return until("a notification", async () => {
    const shown = await found()
    return shown.length > 0 && shown
  })
}
