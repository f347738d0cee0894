import { scenarios } from "./component.js"
import { Prosody } from "./prosody.js"

scenarios(Prosody)
