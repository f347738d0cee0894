// Accessibility as axe-core judges it.
import { readFileSync } from "node:fs"
import { createRequire } from "node:module"

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8")

// Rules besides those that are on by default.
const RULES = { "label-content-name-mismatch": { enabled: true } }

// What axe-core finds, on the page as it is shown now. It is run by the debugger, which the policy of the page does not bind.
export async function violations(page) {
  await page.evaluate(AXE)
  const { violations } = await page.evaluate((rules) => globalThis.axe.run({ rules }), RULES)
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" | ")}`)
}
