// Checks an AsyncAPI description with the parser of AsyncAPI: node asyncapi.mjs FILE

import { readFile } from 'node:fs/promises'
import { Parser } from '@asyncapi/parser'

const file = process.argv[2]
const { document, diagnostics } = await new Parser().parse(await readFile(file, 'utf8'), { source: file })
for (const { path, message } of diagnostics) console.error(`${path.join('.')}: ${message}`)
if (!document || diagnostics.length > 0) process.exit(1)
console.log(`AsyncAPI ${document.version()}: ${document.channels().all().length} channels, ${document.operations().all().length} operations`)
