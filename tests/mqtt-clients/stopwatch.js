// Measures what the gateway promises about time, on a machine that may be busy with something else: how late a timer of
// this process rings meanwhile is taken off, as it says how late everybody gets a processor.
const TICK = 5
const INEXACT = 1.5

// Begins, and returns two functions: the milliseconds on the clock for a lower bound, and for an upper one those less
// what the machine was late.
export function stopwatch() {
  const began = performance.now()
  let [late, last] = [0, began]
  const control = setInterval(() => {
    const now = performance.now()
    late += Math.max(0, now - last - TICK - INEXACT)
    last = now
  }, TICK)
  control.unref()
  const clock = () => performance.now() - began
  return { clock, own: () => clock() - late }
}
