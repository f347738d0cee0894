# Precedes the blocks of a document: what a reader's commands stand for in the test.
#
# REPOSITORY is its root; GATEWAY_UNDER_TEST and LOADTEST_UNDER_TEST are the commands of this build.

gateways=()
# Python's packages that documents need.
PATH=$REPOSITORY/tests/docs/.venv/bin:$PATH

trap 'for id in "${gateways[@]}" $(jobs -p); do kill "$id" 2>/dev/null; done; wait' EXIT
exec 2>>log

# Starts the gateway in the background; it ends with the script.
serve() {
  local output=gateway-${#gateways[@]}.log
  "$GATEWAY_UNDER_TEST" "$@" >"$output" 2>>log &
  gateways+=($!)
  until grep -q '^listening ' "$output"; do
    kill -0 "${gateways[-1]}" || return 1
    sleep 0.05
  done
}

# Commands of a fresh clone. What is built here is the build under test, and documentation opens no browser.
cargo() {
  case "$*" in
    'run --release') serve ;;
    'run --release -- '*) serve "${@:4}" ;;
    'run --release -p loadtest') loadtest ;;
    'run --release -p loadtest -- '*) loadtest "${@:6}" ;;
    'build --release' | 'build --release --workspace' | 'build --release --workspace --bins --example token_stream' | 'doc --open' | 'install durable-streams '*) ;;
    *) echo "not run here: cargo $*"; return 1 ;;
  esac
}

# Runs the comparison to its end, in a short time: options that make it long, and rivals, are left out. That the whole command
# line is valid is tested with the parser of the comparison (loadtest/src/cli/documented.rs).
loadtest() {
  local command=compare options=() short=() strategies= networks= fuzz= check=
  case ${1-} in compare | sweep | recommend | appends | wake | hold | fan-out | short-polls | networks | simulate | heartbeat | scale | agree | readme) command=$1; shift ;; esac
  if [ "$command" = recommend ]; then "$LOADTEST_UNDER_TEST" recommend "$@"; return; fi
  # Within some seconds, simulated and measured figures need not agree, of which 1 tells.
  if [ "$command" = agree ]; then
    short=(--network none --strategy websocket --clients 1 --lasting 2s)
    [[ " $* " != *" --formulas "* ]] || short=(--settings 2)
    "$LOADTEST_UNDER_TEST" agree "$@" "${short[@]}" || [ $? = 1 ]
    return
  fi
  short=(--gateway "$GATEWAY_UNDER_TEST")
  while [ $# -gt 0 ]; do
    case $1 in
      --seconds | --warm-up | --rounds | --phones | --clients | --connections | --held | --rate | --at-once | --rival | --bursts | --repeat | --seeds) shift ;;
      --check) check=yes; shift ;;
      --measure) ;;
      --fuzz) fuzz=yes; options+=("$1") ;;
      --interval | --hold | --heartbeat) options+=("$1" "${2%%,*}"); shift ;;
      --gateway) short=(); options+=("$1") ;;
      --target) short=(); options+=("$1") ;;
      --strategy) strategies=yes; options+=("$1") ;;
      --network) networks=yes; options+=("$1") ;;
      *) options+=("$1") ;;
    esac
    shift
  done
  case $command in
    compare) short+=(--clients 5 --rate 20 --seconds 0.3 --warm-up 0.1 --late-after 1m --repeat 1)
      [ -n "$strategies" ] || short+=(--strategy sse --strategy short-poll:500ms) ;;
    sweep) short+=(--clients 5 --rate 20 --seconds 0.3 --warm-up 0.1 --late-after 1m --repeat 1) ;;
    networks) short+=(--bursts 1 --scale 0.1)
      # Nothing is lost there, and nothing waited for.
      [ -n "$networks" ] || short+=(--network none) ;;
    simulate) if [ -n "$fuzz" ]; then short=(--seeds 2); else short=(--phones 1 --hours 1); fi ;;
    heartbeat) short=(--phones 1 --hours 1) ;;
    scale) if [ -n "$check" ]; then short+=(--strategy long-poll:25s --check 20 --messages 10 --seconds 0.5); else short=(--strategy short-poll:5m); fi ;;
    hold) short+=(--clients 50 --at-once 10 --rounds 1 --seconds 0.2 --warm-up 0.1) ;;
    fan-out) short+=(--clients 50 --rounds 1 --seconds 0.2 --warm-up 0.1) ;;
    appends | short-polls) short+=(--connections 4 --rounds 1 --seconds 1 --warm-up 1) ;;
    # A poll has half a second to be held again, as a run fails whose polls are not.
    wake) short+=(--held 2 --rate 4 --rounds 1 --seconds 1 --warm-up 0.1) ;;
  esac
  "$LOADTEST_UNDER_TEST" "$command" "${options[@]}" "${short[@]}"
}

# The tests of this repository: only the names of their groups are checked.
tests/run() {
  local known=" all list $("$REPOSITORY/tests/run" list | tr '\n' ' ') " group
  for group; do
    [[ $known == *" $group "* ]] || { echo "tests/run has no group $group"; return 1; }
  done
}

# npm without its requests to the registry.
npm() { command npm --offline --no-audit --no-fund "$@"; }

# The measurement of a network, which takes a minute otherwise.
pollgate() {
  local short=()
  if [ "$1" = bench ]; then short=(--idle 1s); fi
  command pollgate "$@" "${short[@]}"
}

# mosquitto's clients with the port of this gateway.
mosquitto_sub() { command mosquitto_sub -p 1883 "$@"; }
mosquitto_pub() { command mosquitto_pub -p 1883 "$@"; }

# curl shows no progress, as its output is no terminal's.
curl() { command curl -s "$@"; }

# Executes a JavaScript block, for 6 s at most since a subscription does not end, with a stand-in for the storage of pages.
javascript() {
  timeout 6 node --import ./storage.mjs --input-type=module
  local outcome=$?
  [ $outcome = 124 ] || return $outcome
}
