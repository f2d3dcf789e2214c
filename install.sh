#!/usr/bin/env bash
# Installs zsky-box in this checkout, starts it and makes a first clip. Safe to run again: it does only what is left to do.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/environment.sh
source "$root/scripts/environment.sh"

DEFAULT_DATA="$root/data"
DEFAULT_PORT=8420
CPU_TORCH_INDEX=https://download.pytorch.org/whl/cpu
# Where the model that answers says what it can do, its first example is asked for instead.
FIRST_PROMPT="A lighthouse in a storm at dusk, waves breaking over the rocks, thunder rolling"

usage() {
    cat <<TEXT
usage: ./install.sh [options]

Installs into .venv of this folder, creates the data folder and its owner, starts the box, makes a first clip.
Run again after an update, or to start a stopped box. Nothing outside this folder and the data folder is touched,
and root's rights are needed for --service alone.

  --port PORT         where the box listens on this machine (default: where it runs already, else the port of its settings, else $DEFAULT_PORT)
  --data DIR          where the box keeps its ledger and its files (default: \$ZSKY_DATA, else data/ of this folder)
  --torch-index URL   the package index that torch comes from, instead of pip's own. Without an NVIDIA GPU,
                      $CPU_TORCH_INDEX has a much smaller build (also: \$TORCH_INDEX)
  --no-start          install and create the owner, but start nothing
  --service           run as a systemd service under your name, started with the machine
  --print-unit        print that service's unit and do nothing else
  --stop              stop the box
  --uninstall         stop the box, remove .venv and the service; the data stays
      --purge         with --uninstall: remove the data too, after a question
      --yes           with --purge: do not ask
  --help              this text
TEXT
}

action=install
data=${ZSKY_DATA:-$DEFAULT_DATA}
port=""
torch_index=${TORCH_INDEX:-}
start=yes
as_service=""
purge=""
assume_yes=""

refuse() { die "$1 (./install.sh --help lists the options)" 2; }

choose() { # the one thing to do
    [ "$action" = install ] || [ "$action" = "$1" ] || refuse "--$action and --$1 exclude each other."
    action=$1
}

parse_options() {
    local option value
    while [ $# -gt 0 ]; do
        option=$1
        shift
        case $option in
        --port | --data | --torch-index)
            [ $# -gt 0 ] || refuse "$option needs a value."
            value=$1
            shift
            ;;
        --port=* | --data=* | --torch-index=*)
            value=${option#*=}
            option=${option%%=*}
            ;;
        esac
        case $option in
        --port) port=$value ;;
        --data) data=$value ;;
        --torch-index) torch_index=$value ;;
        --no-start) start="" ;;
        --service) as_service=yes ;;
        --print-unit | --stop | --uninstall) choose "${option#--}" ;;
        --purge) purge=yes ;;
        --yes) assume_yes=yes ;;
        -h | --help)
            usage
            exit
            ;;
        *) refuse "There is no option '$option'." ;;
        esac
        case $option in
        --port | --data | --torch-index) [ -n "$value" ] || refuse "$option needs a value." ;;
        esac
    done
    [ -z "$purge" ] || [ "$action" = uninstall ] || refuse "--purge belongs to --uninstall."
    [ -z "$port" ] || [[ $port =~ ^[1-9][0-9]{0,4}$ && $port -le 65535 ]] || refuse "--port is a number from 1 to 65535, not '$port'."
    [[ $data != *$'\n'* ]] || refuse "--data cannot hold a line break."
    data=$(realpath -m -- "$data")
}

# The options that a later command needs to mean this box.
same_box() { [ "$data" = "$DEFAULT_DATA" ] || printf ' --data %q' "$data"; }

# The key from when it is made until it is shown: it exists nowhere else.
api_key=""

# However this script ends, the key is not lost and no half-started box is left behind.
on_exit() {
    local status=$?
    trap '' INT TERM
    [ -z "$api_key" ] || say "" "The API key, shown this once: $api_key"
    abandon_start
    exit "$status"
}

check_machine() {
    [ "$(uname -s)" = Linux ] || die "zsky-box runs on Linux and on WSL2; this is $(uname -s)."
    [ "$(id -u)" != 0 ] || [ -z "${SUDO_USER:-}" ] || say "Note: under sudo everything here will belong to root; run it as $SUDO_USER to own it (sudo is asked for where it is needed)."
    if [ -z "$torch_index" ] && [ ! -e "$root/.venv/zsky-torch" ] && [ ! -e /proc/driver/nvidia ] && [ ! -e /dev/dxg ]; then
        say "No NVIDIA driver here: the box will work on the CPU. (--torch-index $CPU_TORCH_INDEX fetches a smaller torch.)"
    fi
}

# One installation at a time in this checkout; the lock goes with the process, however it ends.
take_lock() {
    exec 9<"$root/install.sh"
    flock --nonblock 9 || die "Another install.sh is at work in this folder."
}

# Creates the data folder, the owner and the first key; a box that has an owner keeps its keys.
create_owner() {
    local answer problem
    (umask 077 && mkdir -p "$data")
    problem=$(mktemp)
    if answer=$(ZSKY_PORT=$port "$box_program" init --json 2>"$problem"); then
        api_key=$(field api_key <<<"$answer")
        setup_url=$(field setup_url <<<"$answer")
        rm "$problem"
        return
    fi
    answer+=$(cat "$problem")
    rm "$problem"
    [[ $answer == *already* ]] || die "The box could not be set up: $answer"
}

field() { "$root/.venv/bin/python" "$root/scripts/probe.py" field "$1"; }

# A clip that is there is whole: the box's commands save a file at its end or not at all.
make_first_clip() {
    first_clip="$data/first-clip.mp4"
    [ ! -e "$first_clip" ] || return 0
    say "Making the first clip ..."
    local prompt
    prompt=$("$box_program" models list --json | "$root/.venv/bin/python" "$root/scripts/probe.py" example) || prompt=""
    "$box_program" generate "${prompt:-$FIRST_PROMPT}" --type video --out "$first_clip" >/dev/null || first_clip=""
}

show_summary() {
    local again started_so
    again=$(same_box)
    say "" "zsky-box is ${1}." ""
    [ -z "$start" ] || say "  URL         $(field url <"$data/control.json")"
    [ -z "$first_clip" ] || say "  First clip  $first_clip"
    if [ -n "$api_key" ]; then
        say "  API key     $api_key" "              (shown this once: keep it)"
        api_key=""
    else
        say "  API key     was shown when it was made; a new one:" "              $(printf %q "$box_program")$again keys rotate"
    fi
    [ -z "$setup_url" ] || say "  Set up      $setup_url"
    say "" "  Stop        ./install.sh --stop$again"
    [ "$port" = "$configured_port" ] || started_so="$again --port $port"
    say "  Start       ./install.sh${started_so-$again}"
    say "  Uninstall   ./install.sh --uninstall$again   (keeps the data; --purge removes it)"
}

install_box() {
    local python running="" old_port
    setup_url=""
    first_clip=""
    check_machine
    python=$(find_python)
    ! box_runs || running=yes
    service_is_ours && as_service=yes
    if service_is_ours; then old_port=$(service_port); else old_port=$(box_field port); fi
    configured_port=${ZSKY_PORT:-$("$python" "$root/scripts/probe.py" setting port "$data")}
    configured_port=${configured_port:-$DEFAULT_PORT}
    port=${port:-${old_port:-$configured_port}}
    [ -z "$as_service" ] || print_unit >/dev/null # a folder that cannot be served is told first
    if [ -n "$start" ] && { [ -z "$running" ] || [ "$port" != "$old_port" ]; }; then
        "$python" "$root/scripts/probe.py" port "$port" || exit 1
    fi

    if [ -n "$running" ] && ! keeps_running; then
        say "Stopping the box: what it runs has changed ..."
        stop_box
        running=""
    fi
    make_environment "$root/.venv" "$torch_index" requirements.lock
    export ZSKY_DATA=$data
    [ -n "$running" ] || create_owner
    if [ -n "$as_service" ]; then
        can_be_service || explain_service
        install_service
    fi
    if [ -z "$start" ]; then
        show_summary installed
        return
    fi
    if [ -z "$running" ]; then
        say "Starting the box ..."
        if [ -n "$as_service" ]; then start_service; else start_in_background; fi
    fi
    make_first_clip
    show_summary running
    [ -n "$first_clip" ] || die "The box runs, but the first clip failed (see above); zsky-box doctor looks for the reason."
}

# A box that runs what is on the disk, where and how it is wished, is left alone.
keeps_running() {
    environment_is_current "$root/.venv" "$torch_index" requirements.lock &&
        [ "$(box_field code)" = "$(code_fingerprint)" ] && [ "$port" = "$old_port" ] &&
        { [ -z "$as_service" ] || service_runs; }
}

explain_service() {
    say "" "This machine runs no systemd, or has no sudo to reach it with. The unit, for $UNIT_FOLDER/$UNIT:" "" >&2
    print_unit >&2
    say "" "With root's rights: ./install.sh --print-unit$(same_box) --port $port >$UNIT_FOLDER/$UNIT && systemctl daemon-reload && systemctl enable --now ${UNIT%.service}" >&2
    die "The box is installed, but not as a service. (./install.sh$(same_box) runs it in the background.)"
}

uninstall_box() {
    local others
    [ -z "$purge" ] || confirm_purge
    stop_box
    others=$(serving_pids | xargs)
    [ -z "$others" ] || die "A box that was started by hand still runs from here (pid $others): stop it first."
    if [ -n "$purge" ] && data_is_in_use; then
        die "Another box uses $data: stop it first."
    fi
    ! service_is_ours || remove_service
    rm -rf "$root/.venv"
    if [ -n "$purge" ]; then
        if [ "$data" = "$DEFAULT_DATA" ]; then # its README belongs to the checkout
            find "$data" -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -rf -- {} +
        else
            rm -rf -- "$data"
        fi
        say "Removed, with the data in $data."
    else
        say "Removed. The data stays in $data."
    fi
}

# The folder goes as a whole, so it must be a box's folder and nobody's home.
confirm_purge() {
    local answer
    [ -d "$data" ] || {
        purge=""
        return 0
    }
    case $root/ in "${data%/}"/*) die "$data holds this checkout: it will not be purged." ;; esac
    case ${HOME:-/}/ in "${data%/}"/*) die "$data holds your home folder: it will not be purged." ;; esac
    [ -e "$data/ledger.db" ] || [ "$data" = "$DEFAULT_DATA" ] || die "$data has no ledger of a box: it will not be purged."
    [ -z "$assume_yes" ] || return 0
    [ -t 0 ] || die "--purge asks before it removes $data; where nobody can answer, add --yes." 2
    read -r -p "Remove every file in $data, the ledger included? Type yes: " answer
    [ "$answer" = yes ] || die "Nothing was removed."
}

parse_options "$@"
# shellcheck source=scripts/box.sh
source "$root/scripts/box.sh"

if [ "$action" = print-unit ]; then
    port=${port:-$DEFAULT_PORT}
    print_unit
    exit
fi
take_lock
trap on_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
case $action in
install) install_box ;;
stop)
    if box_runs; then stop_box && say "Stopped."; else say "The box does not run."; fi
    ;;
uninstall) uninstall_box ;;
esac
