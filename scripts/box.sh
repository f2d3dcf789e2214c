# shellcheck shell=bash
# Sourced, never run: one box on one data folder, as a process in the background or as a systemd service.
# Expects `root`, `data`, `port`, and say and die (environment.sh).

BOX_READY_SECONDS=180 # a cold disk reads torch's libraries in tens of seconds
BOX_STOP_SECONDS=60
UNIT=zsky-box.service
# Where systemd keeps its units, and what is there only while it runs the machine; set elsewhere for packaging and tests.
UNIT_FOLDER=${BOX_UNIT_FOLDER:-/etc/systemd/system}
SYSTEMD_RUNTIME=${BOX_SYSTEMD_RUNTIME:-/run/systemd/system}

starting=""
box_program="$root/.venv/bin/zsky-box"
box_log="$data/zsky-box.log"
# pid, ticks (when that process began, so that a reused pid is not taken for the box), port, code.
box_state="$data/zsky-box.run"

box_field() { [ ! -e "$box_state" ] || sed -n "s/^$1=//p" "$box_state"; }

# The start time of a living process in clock ticks, proc_pid_stat(5) field 22; its name (field 2) may hold spaces.
process_ticks() {
    local stat fields
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    read -r -a fields <<<"${stat##*) }"
    [ "${fields[0]}" != Z ] && printf '%s\n' "${fields[19]}"
}

# Prints the pid of the box that was started in the background here, if it still runs.
box_pid() {
    local pid
    pid=$(box_field pid)
    [ -n "$pid" ] && [ "$(process_ticks "$pid")" = "$(box_field ticks)" ] && printf '%s\n' "$pid"
}

# Pids of this checkout's services, however they were started and whatever their data folder.
serving_pids() {
    local entry words word
    for entry in /proc/[0-9]*; do
        mapfile -d '' -t words 2>/dev/null <"$entry/cmdline" || continue
        [[ " ${words[*]:1} " == *" serve "* ]] || continue
        for word in "${words[@]:0:2}"; do # the interpreter, and the script where there is one
            [[ $word == /* ]] || word="$(readlink "$entry/cwd")/$word"
            if [[ $(realpath --canonicalize-missing --no-symlinks -- "$word") == "$root/.venv/bin/"* ]]; then
                printf '%s\n' "${entry#/proc/}"
                break
            fi
        done
    done
}

# Whether some box, of whatever checkout, has the data folder open.
data_is_in_use() { [ -e "$data/instance.lock" ] && ! flock --nonblock "$data/instance.lock" true; }

# What a running box has loaded: names, sizes and times, so that a folder full of weights is not read for this.
code_fingerprint() {
    local part parts=()
    for part in zsky_box web models pyproject.toml requirements.lock; do
        [ ! -e "$root/$part" ] || parts+=("$part")
    done
    (cd "$root" && find "${parts[@]}" -name __pycache__ -prune -o -type f -printf '%p %s %T@\n') | LC_ALL=C sort | digest
}

remember_box() { # PID
    (
        umask 077
        printf 'pid=%s\nticks=%s\nport=%s\ncode=%s\n' "$1" "$(process_ticks "$1")" "$port" "$(code_fingerprint)" >"$box_state.new"
    )
    mv "$box_state.new" "$box_state"
}

# Runs a command as root: as it is for root, else by sudo.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

can_be_service() { [ -d "$SYSTEMD_RUNTIME" ] && { [ "$(id -u)" = 0 ] || command -v sudo >/dev/null; }; }

# A unit of that name may belong to another checkout: the program's path tells.
service_is_ours() { grep -qF "ExecStart=\"$(unit_text "$box_program")\"" "$UNIT_FOLDER/$UNIT" 2>/dev/null; }

service_runs() { service_is_ours && systemctl is-active --quiet "$UNIT"; }

service_port() { sed -n 's/^ExecStart=.* --port \([0-9]*\)$/\1/p' "$UNIT_FOLDER/$UNIT"; }

# A value as it stands inside quotes in a unit: systemd reads \, " and % for itself.
unit_text() {
    local text=${1//\\/\\\\}
    text=${text//\"/\\\"}
    printf '%s' "${text//%/%%}"
}

print_unit() {
    local unit
    [[ $root != *[\"\'\\]* ]] || die "systemd starts no program from a folder with a quote or a backslash in its name: $root"
    unit=$(cat "$root/scripts/$UNIT")
    # A folder of WorkingDirectory takes no quotes, and Documentation is a URI.
    unit=${unit//@FOLDER@/"${root//%/%%}"}
    unit=${unit//@URI@/"file:$(unit_text "${root// /%20}")"}
    unit=${unit//@ROOT@/"$(unit_text "$root")"}
    unit=${unit//@DATA@/"$(unit_text "$data")"}
    unit=${unit//@USER@/"$(id -un)"}
    unit=${unit//@PORT@/"$port"}
    printf '%s\n' "${unit//@STOP_SECONDS@/"$BOX_STOP_SECONDS"}"
}

install_service() {
    local unit
    unit=$(mktemp)
    print_unit >"$unit"
    as_root install -m 0644 "$unit" "$UNIT_FOLDER/$UNIT"
    rm "$unit"
    as_root systemctl daemon-reload
    as_root systemctl enable --quiet "$UNIT"
}

remove_service() {
    as_root systemctl disable --now --quiet "$UNIT"
    as_root rm -f "$UNIT_FOLDER/$UNIT"
    as_root systemctl daemon-reload
}

# Waits for a starting box; its last words are shown where it fails.
await_ready() { # PID, and the command that shows the log's end
    local pid=$1
    shift
    "$root/.venv/bin/python" "$root/scripts/probe.py" ready "$data" "$pid" "$BOX_READY_SECONDS" && return
    say "The end of its log:" >&2
    "$@" >&2 || say "(there is none)" >&2
    return 1
}

start_service() {
    as_root systemctl restart "$UNIT"
    local pid
    pid=$(systemctl show --property MainPID --value "$UNIT")
    await_ready "$pid" as_root journalctl --unit "$UNIT" --lines 25 --no-pager || die "The service did not start. Its whole log: journalctl -u $UNIT"
    remember_box "$pid"
}

# Starts the box in a session of its own. `starting` is its pid until it is ready: see abandon_start.
start_in_background() {
    [ ! -e "$box_log" ] || mv "$box_log" "$box_log.1"
    (umask 077 && : >"$box_log")
    # The installer's lock (9) must not live on in the box.
    setsid "$box_program" serve --port "$port" </dev/null >>"$box_log" 2>&1 9<&- &
    starting=$!
    remember_box "$starting"
    await_ready "$starting" tail -n 25 "$box_log" || die "The box did not start. Its whole log: $box_log"
    disown "$starting"
    starting=""
}

abandon_start() {
    [ -n "$starting" ] || return 0
    stop_process "$starting"
    rm -f "$box_state"
}

# SIGTERM and patience, then SIGKILL for the whole session: a box's children are in it.
stop_process() { # PID
    local pid=$1 ticks tries=$((BOX_STOP_SECONDS * 10))
    ticks=$(process_ticks "$pid") || return 0
    kill -TERM "$pid"
    while [ "$(process_ticks "$pid")" = "$ticks" ]; do
        if [ $((tries -= 1)) -lt 0 ]; then
            say "The box did not stop within $BOX_STOP_SECONDS seconds and is killed; it takes up its open jobs at the next start."
            kill -KILL -- "-$pid"
            break
        fi
        sleep 0.1
    done
}

stop_background() {
    local pid
    if pid=$(box_pid); then
        stop_process "$pid"
    fi
    rm -f "$box_state"
}

box_runs() { service_runs || box_pid >/dev/null; }

stop_box() {
    if service_runs; then
        as_root systemctl stop "$UNIT"
        rm -f "$box_state"
    else
        stop_background
    fi
}
