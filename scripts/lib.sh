# What the scripts of this folder share. Sourced, never run.
#
# A script sets its name and calls `begin`; from then on `$WORK` is its own temporary folder, every
# process it starts through `start` is ended when it ends, and what it mounted is unmounted.
# Nothing here reads standard input, and no script depends on the folder it is called from.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
SHARED=${KILN_SHARED:-$(dirname "$ROOT")/shared}
STARTED=$SECONDS
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
exec </dev/null

say() { printf '[%4ds] %s\n' "$((SECONDS - STARTED))" "$*"; }
die() { printf '%s: %s\n' "${NAME:-$(basename "$0")}" "$*" >&2; exit 1; }

AT_END=()
at_end() { AT_END+=("$(printf '%q ' "$@")"); } # at_end COMMAND…: also when the script ends

need_root() { [ "$(id -u)" = 0 ] || die "needs root: run it with sudo"; }

# ---- a temporary folder, and an end that leaves nothing

begin() { # begin NAME: makes $WORK
  NAME=$1
  # A script called by another makes its folder beside the other's: podman takes no path of more than 50 characters.
  export KILN_SCRIPT_TMP=${KILN_SCRIPT_TMP:-${TMPDIR:-/tmp}}
  WORK=$(mktemp -d "$KILN_SCRIPT_TMP/kiln-$NAME.XXXXXX")
  mkdir "$WORK/tmp" "$WORK/log"
  : >"$WORK/pids"
  export TMPDIR=$WORK/tmp
  # Every process below us carries this variable, so that one that outlives us can be found.
  export KILN_SCRIPT_RUN="${KILN_SCRIPT_RUN:-} $WORK"
  export KILN_SCRIPT_FOLDERS=${KILN_SCRIPT_FOLDERS:-$WORK/folders}
  echo "$WORK" >>"$KILN_SCRIPT_FOLDERS"
  trap finish EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

start() { # start LABEL COMMAND…: in the background, output in $WORK/log/LABEL; its id in $STARTED_PID
  local label=$1; shift
  env -u KILN_SCRIPT_RUN "$@" >>"$WORK/log/$label" 2>&1 &
  STARTED_PID=$!
  echo "$STARTED_PID $label" >>"$WORK/pids"
}

stop() { # stop LABEL: ends what `start LABEL` began, and waits for it
  local pid label
  while read -r pid label; do
    [ "$label" = "$1" ] || continue
    kill "$pid" 2>/dev/null || continue
    for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done < <(tac "$WORK/pids")
}

mounts_below() { # the mount points below a folder, innermost first
  awk -v d="$1/" 'index($5 "/", d) == 1 { print $5 }' /proc/self/mountinfo | sort -r
}

processes_left() { # processes that this script's commands started (servers apart), whatever their parent is now
  local p found
  # A process in a container has an environment of its own; it is known by what is mounted on its root.
  found=$({
    grep -lszE "^KILN_SCRIPT_RUN=.*$WORK( |$)" /proc/[0-9]*/environ || true
    grep -lsE "^[0-9]+ [0-9]+ [^ ]+ [^ ]+ / .*$WORK/" /proc/[0-9]*/mountinfo || true
  } | cut -d/ -f3 | sort -un)
  # This pipe's own commands have ended by now.
  for p in $found; do
    grep -qs '^State:[[:space:]]*[^ZX]' "/proc/$p/status" || continue
    printf '%s %s\n' "$p" "$(tr '\0' ' ' 2>/dev/null <"/proc/$p/cmdline" || true)"
  done
}

finish() {
  local status=$? label pid m
  trap - EXIT HUP INT TERM
  set +e
  for m in "${AT_END[@]}"; do eval "$m"; done
  tac "$WORK/pids" | while read -r _ label; do stop "$label"; done
  processes_left | while read -r pid _; do kill -9 "$pid" 2>/dev/null; done
  for m in $(mounts_below "$WORK"); do umount -l "$m"; done
  if [ "$status" != 0 ] && [ -n "${KEEP_WORK:-}" ]; then echo "$NAME: kept $WORK" >&2; exit "$status"; fi
  # Empty groups and folders that docker, podman and buildah do not take away.
  rmdir /sys/fs/cgroup/*/{docker,libpod_parent,buildah-*} /run/containerd/s /run/containerd 2>/dev/null
  rm -rf --one-file-system "$WORK"
  [ -e "$WORK" ] && { echo "$NAME: could not remove $WORK" >&2; status=1; }
  exit "$status"
}

# ---- what must be installed

need_packages() { # need_packages DEBIAN-PACKAGE…: installs the missing ones, starts no service
  local p missing=() guard=/usr/sbin/policy-rc.d guarded=
  for p; do dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q ' installed$' || missing+=("$p"); done
  [ ${#missing[@]} = 0 ] && return
  need_root
  command -v apt-get >/dev/null || die "needs the packages ${missing[*]}, and can only install them on Debian"
  say "installing ${missing[*]}"
  if [ -z "${APT_UPDATED:-}" ]; then
    apt-get -qq update >"$WORK/log/apt" 2>&1 || die "apt-get update failed: $(tail -n 1 "$WORK/log/apt")"
    APT_UPDATED=yes
  fi
  # Some of these packages start a daemon when they are installed; the tests start their own.
  [ -e $guard ] || { printf '#!/bin/sh\nexit 101\n' >$guard; chmod 755 $guard; guarded=yes; }
  local status=0
  apt-get -qq install -y --no-install-recommends "${missing[@]}" >>"$WORK/log/apt" 2>&1 || status=$?
  [ -z "$guarded" ] || rm -f $guard
  [ $status = 0 ] || die "apt-get install ${missing[*]} failed: $(grep '^E:' "$WORK/log/apt" | head -n 1)"
}

need_rust() {
  command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
  command -v cargo >/dev/null || die "needs Rust 1.95 or newer (cargo is not in PATH)"
  need_packages gcc libc6-dev
}

need_kiln() { # makes $KILN: the binary named by the caller, else the release build
  if [ -n "${KILN:-}" ]; then
    case $KILN in */*) KILN=$(realpath "$KILN") ;; *) KILN=$(command -v "$KILN") || die "KILN: no such command" ;; esac
  else
    "$ROOT/scripts/build" || exit 1
    KILN=$ROOT/target/kiln
  fi
  [ -x "$KILN" ] || die "$KILN is not a program"
  export KILN
}

# ---- waiting, ports

wait_for() { # wait_for WHAT SECONDS COMMAND…
  local what=$1 tries=$(($2 * 10)); shift 2
  while ! "$@" >/dev/null 2>&1; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || die "$what did not happen in time"
    sleep 0.1
  done
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

free_port() { # a port of 127.0.0.1 that nobody listens on
  local port
  while :; do
    port=$((20000 + RANDOM % 10000))
    listens $port || { echo $port; return; }
  done
}

# ---- servers

registry_start() { # registry_start LABEL [http|htpasswd|tls]: Debian's docker-registry; its address in $REGISTRY
  local label=$1 kind=${2:-http} port dir=$WORK/registry-$1 more=
  port=$(free_port)
  mkdir -p "$dir"
  case $kind in
    http) ;;
    htpasswd) # The user is `kiln`, the password `secret` (bcrypt).
      printf '%s\n' 'kiln:$2b$05$KBCwKxOEBYMHRPPbXy3vKezfqaKPbrSBJRDstIGAKrWxpBePILkEC' >"$dir/htpasswd"
      more="auth: {htpasswd: {realm: kiln, path: '$dir/htpasswd'}}" ;;
    tls)
      openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
        -addext 'subjectAltName=DNS:localhost,IP:127.0.0.1' -keyout "$dir/key.pem" -out "$dir/ca.pem" 2>/dev/null ;;
  esac
  cat >"$dir/config.yml" <<-YML
	version: 0.1
	storage: {filesystem: {rootdirectory: '$dir/data'}, delete: {enabled: true}}
	http: {addr: '127.0.0.1:$port'$([ "$kind" = tls ] && echo ", tls: {certificate: '$dir/ca.pem', key: '$dir/key.pem'}")}
	log: {level: warn, accesslog: {disabled: true}}
	$more
	YML
  start "registry-$label" docker-registry serve "$dir/config.yml"
  wait_for "the start of the registry $label" 20 listens "$port"
  REGISTRY=127.0.0.1:$port
}

docker() { DOCKER_BUILDKIT=1 DOCKER_CONFIG=$WORK/docker-config command /usr/bin/docker -H "unix://$WORK/dockerd/sock" "$@"; }

# The base images of the conformance cases, served by the suite's own setup; made while others work. Their address is in $SERVED,
# and $BASES_DIR/bases has their file trees. What runs already is used, and goes on.
BASES_DIR=${CONFORMANCE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/kiln-conformance}
bases_begin() {
  local setup=$SHARED/conformance/setup
  [ -x "$setup" ] || die "the conformance cases are not at $SHARED/conformance: put the folder shared beside this one, or set KILN_SHARED"
  BASES='' BASES_OURS=''
  if "$setup" status >/dev/null; then
    SERVED=$(grep -oE '127\.0\.0\.1:[0-9]+' "$BASES_DIR/kiln.toml" | head -n 1)
    return
  fi
  SERVED=127.0.0.1:$(free_port)
  env -u TMPDIR -u KILN_SCRIPT_RUN "$setup" all --port "${SERVED##*:}" >"$WORK/log/setup" 2>&1 &
  BASES=$! BASES_OURS=yes
  echo "$BASES setup" >>"$WORK/pids"
  at_end "$setup" stop
}
bases_wait() { # until they are made; false if they cannot be
  [ -z "$BASES" ] || wait "$BASES" || { echo "no base images: $(tail -n 1 "$WORK/log/setup")" >&2; return 1; }
  BASES=''
}

# Debian's dockerd, started by hand with everything of it below $WORK. There is no bridge: containers and
# builds take --network host or none. dockerd starts and ends its own containerd.
dockerd_start() {
  local d=$WORK/dockerd
  mkdir -p "$d" "$WORK/docker-config"
  start dockerd dockerd --data-root "$d/data" --exec-root "$d/exec" --pidfile "$d/pid" -H "unix://$d/sock" \
    --bridge none --iptables=false --ip6tables=false --storage-driver overlay2
  wait_for "the start of dockerd" 30 docker version
}

# Debian's podman and buildah, with a store below $WORK. On a machine that lacks CAP_SYS_RESOURCE (many
# containers and small virtual machines) they cannot raise limits, so these are given and lie below the usual
# hard limits; crun fails on the same, so the runtime is runc; there is no systemd, so cgroups go through cgroupfs.
LIMITS=(--ulimit nofile=1024:1024 --ulimit nproc=4096:4096)
podman() {
  env -u DOCKER_CONFIG podman --root "$WORK/podman/root" --runroot "$WORK/podman/run" --tmpdir "$WORK/podman/tmp" --storage-driver overlay \
    --cgroup-manager cgroupfs --events-backend file --runtime /usr/sbin/runc "$@"
}
buildah() { env -u DOCKER_CONFIG buildah --root "$WORK/buildah/root" --runroot "$WORK/buildah/run" --storage-driver overlay "$@"; }
buildah_build() { buildah build --isolation oci --runtime /usr/sbin/runc --network host "${LIMITS[@]}" "$@"; }

# ---- a kiln that sees only $WORK

kiln_home() { # kiln_home REGISTRY: a store, a configuration and a home of its own; docker.io comes from REGISTRY
  export KILN_ROOT=$WORK/kiln KILN_CONFIG=$WORK/kiln.toml DOCKER_CONFIG=$WORK/kiln-docker HOME=$WORK/home
  mkdir -p "$KILN_ROOT" "$DOCKER_CONFIG" "$HOME"
  printf '[registry."docker.io"]\nmirrors = ["%s"]\n[registry."%s"]\nhttp = true\n' "$1" "$1" >"$KILN_CONFIG"
}

# ---- checks

N_PASSED=0
N_FAILED=0

check() { # check NAME COMMAND…: one test; the command's output is shown when it fails
  local name=$1 status=0 log; shift
  log=$WORK/log/check-$((N_PASSED + N_FAILED))
  set +e
  (set -e; "$@") >"$log" 2>&1
  status=$?
  set -e
  if [ $status = 0 ]; then
    N_PASSED=$((N_PASSED + 1)); printf 'ok    %s\n' "$name"
  else
    N_FAILED=$((N_FAILED + 1)); printf 'FAIL  %s (status %s)\n' "$name" $status; tail -n 15 "$log" | sed 's/^/      | /'
  fi
}

wrong() { echo "wrong: $*" >&2; return 1; }
same() { [ "$2" = "$3" ] || wrong "$1 is '$2', expected '$3'"; }
has() { grep -qE -- "$2" "$1" || { cat "$1"; wrong "nothing matches /$2/ in the above"; }; }

close() { # the closing line; the script's status says whether all passed
  echo "$NAME: $N_PASSED passed, $N_FAILED failed"
  [ $N_FAILED = 0 ] && [ $N_PASSED -gt 0 ]
}
