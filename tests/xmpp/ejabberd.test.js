import { scenarios } from "./component.js"
import { Ejabberd } from "./ejabberd.js"

scenarios(Ejabberd)
