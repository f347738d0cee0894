# What tests/run needs of the machine, and how it runs a group and says how long that took.

say() { printf '\n== %s\n' "$1"; }

# Installs Debian packages for commands that are not there: need COMMAND PACKAGE
need() {
  command -v "$1" >/dev/null && return
  say "installing $2, which brings $1"
  debian "$2"
}

# The same for Python's environments, which are a package without a command: python3 may be there without them.
need_environments() {
  python3 -c 'import ensurepip' 2>/dev/null && return
  say "installing python3-venv"
  debian python3-venv
}

# The same for a package that brings no command at all.
need_package() {
  dpkg -s "$1" >/dev/null 2>&1 && return
  say "installing $1"
  debian "$1"
}

# Installs a Debian package.
debian() {
  [ "$(id -u)" = 0 ] || exec_as_root=sudo
  [ -n "${lists_are_new-}" ] || ${exec_as_root:-} apt-get update -qq
  lists_are_new=yes
  ${exec_as_root:-} apt-get install -y -qq "$1"
}

# Installs the npm packages that a folder's lock names, unless they are there.
packages() {
  cmp -s "$1/package-lock.json" "$1/node_modules/.installed" && return
  npm ci --no-audit --no-fund --prefix "$1"
  cp "$1/package-lock.json" "$1/node_modules/.installed"
}

# Installs the Python packages that a folder names into an environment of its own, unless they are there:
# python_packages FOLDER [PYTHON OPTION]. The option --system-site-packages is for those that need packages of Debian's Python.
python_packages() {
  cmp -s "$1/requirements.txt" "$1/.venv/.installed" && return
  say "installing Python packages of $1"
  "${2-python3}" -m venv --clear ${3+"$3"} "$1/.venv"
  "$1/.venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$1/requirements.txt"
  cp "$1/requirements.txt" "$1/.venv/.installed"
}

# Whether a file system in a file can be mounted here, as some containers forbid even to root.
can_mount() {
  local folder
  folder=$(mktemp -d)
  truncate -s 8M "$folder/image" && mkfs.ext4 -q "$folder/image" && mkdir "$folder/mounted" &&
    mount -o loop "$folder/image" "$folder/mounted" 2>/dev/null && umount "$folder/mounted"
  local outcome=$?
  rm -r "$folder"
  return $outcome
}

# Whether a NAT can be made here: network namespaces, and a kernel that masquerades.
can_masquerade() {
  local host=pollgate-trial-$$
  ip netns add "$host" || return
  ip netns exec "$host" nft 'table ip t { chain c { type nat hook postrouting priority srcnat; masquerade; }; }' &&
    ip netns exec "$host" sysctl -q -w net.netfilter.nf_conntrack_tcp_timeout_established=10
  local outcome=$?
  ip netns del "$host"
  return $outcome
}

# Whether network namespaces with a name can be made, which needs root.
can_name_a_network() {
  local name=pollgate-trial-$$
  ip netns add "$name" && ip netns del "$name"
}

left_out=()
leave_out() {
  say "LEFT OUT: $1::, as $2"
  left_out+=(--skip "$1::")
}

# The same for a whole group: leave_out_group GROUP REASON
groups_left_out=" "
leave_out_group() {
  say "LEFT OUT: $1, as $2"
  groups_left_out+="$1 "
}

# Whether a copy of this system can be made by an overlay, in which packages are installed and removed.
can_overlay() {
  local folder
  folder=$(mktemp -d)
  unshare --mount bash -c 'mount -t tmpfs tmpfs "$0" && mkdir "$0"/{upper,work,root} &&
    mount -t overlay overlay -o "lowerdir=/,upperdir=$0/upper,workdir=$0/work" "$0/root" && chroot "$0/root" true' "$folder" 2>/dev/null
  local outcome=$?
  rmdir "$folder"
  return $outcome
}

# Jobs that run beside the groups: each leaves what it says in a file, and how it ended in another.
jobs_folder=$(mktemp -d)
jobs=()
end_jobs() {
  local id
  for id in "${jobs[@]}"; do
    kill -- "-$id" 2>/dev/null || true
  done
  rm -r "$jobs_folder"
}
trap end_jobs EXIT

# Runs a command, and writes the seconds that it took and the processor seconds of it and its children: timed FILE COMMAND...
timed() {
  local file=$1 TIMEFORMAT='%0R %0U %0S'
  shift
  { time { (set -e; "$@") 2>&3; }; } 3>&2 2>"$file"
}

# Starts a job: in_background NAME COMMAND...
in_background() {
  local name=$1
  shift
  # With its children it is a process group, which ends as one.
  set -m
  (
    # In a shell of its own, as errexit does not hold in a condition.
    set +e
    timed "$jobs_folder/$name.times" "$@" >"$jobs_folder/$name" 2>&1 </dev/null
    echo $? >"$jobs_folder/$name.outcome"
  ) &
  set +m
  jobs+=($!)
}

# Whether a job has ended.
has_ended() { [ -s "$jobs_folder/$1.outcome" ]; }

# Waits for a job, and shows what it said if it failed.
in_background_is_done() {
  until has_ended "$1"; do sleep 0.1; done
  [ "$(cat "$jobs_folder/$1.outcome")" != 0 ] || return 0
  cat "$jobs_folder/$1"
  echo "$1 failed"
  return 1
}

times=()
failed=()

# Runs a part, and notes how long it took and whether it failed: run NAME COMMAND...
run() {
  local name=$1 outcome=ok took user system
  shift
  say "$name"
  set +e
  timed "$jobs_folder/waited.times" "$@"
  [ $? = 0 ] || outcome=FAILED
  set -e
  [ $outcome = ok ] || failed+=("$name")
  # What ran beside others may have begun before it was waited for.
  [ -s "$jobs_folder/$name.times" ] || mv "$jobs_folder/waited.times" "$jobs_folder/$name.times"
  read -r took user system <"$jobs_folder/$name.times"
  say "$name: $outcome after $took s"
  times+=("$(printf '%-22s %5d s %5d s  %s' "$name" "$took" $((user + system)) $outcome)")
}

# Runs a part without which the others cannot run.
must_run() {
  run "$@"
  [ ${#failed[@]} = 0 ] || [ "${failed[-1]}" != "$1" ] || summary
}

# Says how long everything took, and ends with whether it passed.
summary() {
  say "times, and processor times"
  printf '%s\n' "${times[@]}" "$(printf '%-22s %5d s' all $SECONDS)"
  [ ${#left_out[@]} = 0 ] || say "LEFT OUT: ${left_out[*]}"
  [ "$groups_left_out" = " " ] || say "LEFT OUT, whole groups:$groups_left_out"
  [ ${#failed[@]} = 0 ] || { say "FAILED: ${failed[*]}"; exit 1; }
  say "all passed"
  exit 0
}
